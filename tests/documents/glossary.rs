//! The glossary is short and linked, and its terms are used in the documents.

use crate::document;

/// The maximum number of terms that a newcomer has to learn.
const MOST: usize = 20;

fn terms() -> Vec<Vec<String>> {
    let (head, rows) = document("GLOSSARY.md").table("Glossary");
    assert_eq!(head, ["term", "meaning"]);
    rows
}

#[test]
fn the_glossary_is_short_and_one_sentence_a_term() {
    let terms = terms();
    assert!(terms.len() <= MOST, "{} terms", terms.len());
    for row in terms {
        let (term, meaning) = (&row[0], &row[1]);
        assert!(
            meaning.ends_with('.') && !meaning.contains(". "),
            "{term}: expected one sentence"
        );
    }
}

#[test]
fn the_documents_use_the_terms_of_the_glossary() {
    let pages = ["README.md", "shared/manifest/README.md"].map(|path| document(path).text);
    let text = pages.concat().to_lowercase();
    let unused: Vec<String> = terms().into_iter().map(|mut row| row.remove(0)).collect();
    let unused: Vec<_> = unused
        .iter()
        .filter(|term| !text.contains(&***term))
        .collect();
    assert!(unused.is_empty(), "no document uses {unused:?}");
}

#[test]
fn the_glossary_is_linked() {
    for path in ["README.md", "CONTRIBUTING.md"] {
        let links = document(path).links();
        assert!(links.iter().any(|link| link == "GLOSSARY.md"), "{path}");
    }
}
