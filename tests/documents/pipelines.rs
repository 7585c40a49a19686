//! Pipeline files in code blocks load without an error.

use sluice::pipeline::Pipeline;

use crate::markdown::documents;

#[test]
fn every_pipeline_in_the_documents_loads() {
    let (mut wrong, mut loaded) = (Vec::new(), 0);
    for document in documents() {
        let blocks = document.blocks().into_iter();
        let files = blocks.filter(|block| block.language == "toml");
        for block in files.filter(|block| block.text.contains("[[steps]]")) {
            match Pipeline::load(&block.text, "document", &document.path) {
                Ok(_) => loaded += 1,
                Err(e) => wrong.push(format!("{e}\n{}", block.text)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(loaded >= 4, "only {loaded} pipelines in the documents");
}

#[test]
fn a_wrong_pipeline_is_noticed() {
    let load = |text: &str| Pipeline::load(text, "document", "test").map(|_| ());
    load("[[steps]]\nstage = 'read'").unwrap();
    assert!(load("[[steps]]\nstage = 'red'").is_err());
    assert!(load("[[steps]]\nstage = 'read'\nmin-side = 3").is_err());
}
