//! All forms of input in a bucket: the same images give the same curated images.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sluice_manifest::rows::CuratedRow;
use sluice_store::{Location, Storage};
use sluice_testkit::Shard;
use sluice_tests::servers::SeaweedFs;
use sluice_tests::{demo_input, models};

use crate::reference::word;
use crate::remote::RemoteFolder;

/// The number of the demo's images in the test.
const IMAGES: usize = 24;

/// Returns some of the demo's images by name, one image twice.
fn photographs(demo: &Path) -> BTreeMap<String, Vec<u8>> {
    let shard = fs::read(demo.join("photos-00000.tar")).unwrap();
    let mut archive = tar::Archive::new(shard.as_slice());
    let mut images = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".jpg") && images.len() < IMAGES {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            images.insert(name, bytes);
        }
    }
    let again = images.values().next().unwrap().clone();
    images.insert("zz-again.jpg".to_owned(), again);
    images
}

fn write_forms(images: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for form in ["tar", "folder/a"] {
        fs::create_dir_all(folder.join(form)).unwrap();
    }
    let mut shard = Shard::new();
    let mut list = String::from("path,text\n");
    for (name, bytes) in images {
        fs::write(folder.join("folder/a").join(name), bytes).unwrap();
        shard = shard.with(name, bytes.clone());
        list += &format!("folder/a/{name},a caption\n");
    }
    fs::write(folder.join("tar/a.tar"), shard.finish()).unwrap();
    fs::write(folder.join("images.csv"), list).unwrap();
}

/// Returns the hashes of the curated images.
fn kept(output: &Path) -> Vec<String> {
    let store = Storage::default().open(&Location::parse(word(output)).unwrap());
    let store = store.unwrap();
    let tables = store.list("").unwrap().into_iter();
    let tables = tables.filter(|object| object.path.ends_with(".parquet"));
    let rows = tables.flat_map(|table| store.rows::<CuratedRow>(&table.path).unwrap());
    let mut hashes: Vec<String> = rows.map(|row| row.unwrap().sha256.unwrap()).collect();
    hashes.sort();
    hashes
}

#[test]
fn every_form_in_a_bucket_gives_the_same_curated_images() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let (Some(demo), Some(models)) = (demo_input(), models(&["efficientnet-lite0", "opennsfw"]))
    else {
        return;
    };
    let remote = RemoteFolder::new(&seaweedfs.site, "forms [1]");
    let folder = remote.here("forms");
    write_forms(&photographs(&demo), &folder);
    remote.bring(&folder, "in");
    let curated = ["tar", "folder", "images.csv"].map(|form| {
        let [input, run, output] = [
            format!("in/{form}"),
            format!("{form}.run"),
            format!("{form}.out"),
        ]
        .map(|path| remote.at(&path));
        remote.done(&[
            "sluice",
            "run",
            "--preset",
            "small",
            "--models",
            word(&models),
            "--input",
            &input,
            "--run",
            &run,
            "--output",
            &output,
        ]);
        remote.verify(&run);
        kept(&remote.fetch(&format!("{form}.out")))
    });
    let [tar, folder, list] = curated;
    assert!(!tar.is_empty() && tar.len() < IMAGES + 1, "{}", tar.len());
    assert_eq!(tar, folder);
    assert_eq!(tar, list);
}
