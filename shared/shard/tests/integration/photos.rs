//! Valid shards of real photos, read back through their offsets.

use sluice_testkit::fixtures;

use crate::support::{read, summary};
use sluice_shard::{caption_member, image_member, metadata_member};

#[test]
fn photos_read_back_through_their_offsets() {
    let Some(fixtures) = fixtures() else { return };
    let mut samples = 0;
    let folder = std::fs::read_dir(fixtures.join("imagenet-1k-sample")).expect("a folder");
    for entry in folder {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a shard");
        let read = read(&bytes);
        assert_eq!(summary(&read), "100 samples");
        assert_eq!(read.compression, "none");
        for sample in &read.samples {
            samples += 1;
            assert_eq!(sample.occurrence, 0);
            let roles = [
                image_member(&sample.members),
                caption_member(&sample.members),
                metadata_member(&sample.members),
            ];
            assert!(roles.iter().all(Option::is_some), "{}", sample.key);
            for member in &sample.members {
                let at = usize::try_from(member.offset).unwrap();
                let size = usize::try_from(member.size).unwrap();
                assert_eq!(member.data.as_deref(), Some(&bytes[at..at + size]));
            }
        }
    }
    assert_eq!(samples, 600);
}
