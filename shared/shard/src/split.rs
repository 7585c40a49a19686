//! Splits samples with several images into one sample for each image.

use crate::event::{Member, Sample, SampleProblem};
use crate::roles::{CAPTION_EXTENSIONS, METADATA_EXTENSIONS, image_members, stem_and_last};

/// Returns a sample for each image: `a.0` and `a.1` for `a.0.jpg` and `a.1.jpg`, `a.jpg` and
/// `a.png` for images that differ only in their extension. A sample with one image is returned
/// unchanged. `caption` is the extension of captions, unless it is one of the usual ones.
///
/// Members between two images belong to the first of them; members before the first image belong to
/// the first image. So each member is in one sample, and shard order is preserved. A caption or
/// metadata has the name of its image (`0.txt`), or belongs to all images (`txt`, or the member
/// named `caption`). `copy` creates a member from one in another part.
pub fn split_images(
    sample: Sample,
    caption: Option<&str>,
    copy: impl Fn(&str, &Member) -> Option<Member>,
) -> Vec<Sample> {
    let images = image_members(&sample.members);
    if images.len() < 2 {
        return vec![sample];
    }
    let names = names_of(&sample.members, &images);
    let texts = Texts {
        members: &sample.members,
        caption,
    };
    let mut parts: Vec<Sample> = Vec::new();
    for (number, member) in sample.members.iter().enumerate() {
        let part = images.partition_point(|&image| image <= number);
        let part = part.saturating_sub(1);
        if parts.len() <= part {
            parts.push(Sample {
                key: format!("{}.{}", sample.key, names[part]),
                occurrence: sample.occurrence,
                members: Vec::new(),
                problem: None,
            });
        }
        push(&mut parts[part].members, member.clone(), &names[part]);
    }
    for (part, name) in parts.iter_mut().zip(&names) {
        texts.add_missing(part, name, &copy);
    }
    place_problem(&mut parts, &images, sample);
    parts
}

/// Returns the names of the images: their extensions without the last part, or with it if the names
/// would not be distinct.
fn names_of(members: &[Member], images: &[usize]) -> Vec<String> {
    let extensions = images
        .iter()
        .map(|&image| members[image].extension.as_str());
    let stems: Vec<&str> = extensions
        .clone()
        .map(|extension| stem_and_last(extension).0)
        .collect();
    let mut distinct = stems.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() == stems.len() && !stems.contains(&"") {
        return stems.into_iter().map(str::to_owned).collect();
    }
    extensions.map(str::to_owned).collect()
}

/// Adds a member to the sample of the image `name`: `0.jpg` of the image `0` becomes `jpg`. A
/// member that has no image's name is renamed if it would collide: `shared.txt` next to the `txt`
/// that was `0.txt`.
fn push(members: &mut Vec<Member>, mut member: Member, name: &str) {
    let own = member.extension.strip_prefix(name);
    let own = own.and_then(|rest| rest.strip_prefix('.'));
    let is_own = own.is_some();
    if let Some(own) = own {
        member.extension = own.to_owned();
    }
    let same = members
        .iter_mut()
        .find(|other| is(&other.extension, &member.extension));
    if let Some(other) = same {
        let shared = format!("shared.{}", member.extension);
        let renamed = if is_own { other } else { &mut member };
        renamed.extension = shared;
    }
    members.push(member);
}

/// The captions and metadata of a sample.
struct Texts<'m> {
    members: &'m [Member],
    caption: Option<&'m str>,
}

impl<'m> Texts<'m> {
    /// Adds the caption and metadata of an image that are in another part.
    fn add_missing(
        &self,
        part: &mut Sample,
        name: &str,
        copy: &impl Fn(&str, &Member) -> Option<Member>,
    ) {
        let captions: &[&str] = match &self.caption {
            Some(caption) => std::slice::from_ref(caption),
            None => &CAPTION_EXTENSIONS,
        };
        for extensions in [captions, &METADATA_EXTENSIONS] {
            let has = |extension: &&str| part.members.iter().any(|m| is(&m.extension, extension));
            if extensions.iter().any(has) {
                continue;
            }
            let found = extensions.iter().find_map(|extension| {
                let member = self.find(name, extension)?;
                copy(extension, member)
            });
            part.members.extend(found);
        }
    }

    /// Returns an image's own text, or else that of the whole sample.
    fn find(&self, name: &str, extension: &str) -> Option<&'m Member> {
        let named = format!("{name}.{extension}");
        let find = |wanted: &str| self.members.iter().find(|m| is(&m.extension, wanted));
        find(&named).or_else(|| find(extension))
    }
}

fn is(extension: &str, other: &str) -> bool {
    extension.eq_ignore_ascii_case(other)
}

/// Assigns the sample's problem to the part that it affects: the last one if the shard ends.
fn place_problem(parts: &mut [Sample], images: &[usize], sample: Sample) {
    let Some(problem) = sample.problem else {
        return;
    };
    let part = match &problem {
        SampleProblem::Sparse { extension } => {
            let mut members = sample.members.iter();
            let at = members.position(|member| member.extension == *extension);
            let at = at.unwrap_or(sample.members.len());
            let before = images.partition_point(|&image| image <= at);
            before.saturating_sub(1)
        }
        _ => parts.len() - 1,
    };
    parts[part].problem = Some(problem);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(extensions: &[&str]) -> Sample {
        let member = |(number, extension): (usize, &&str)| Member {
            extension: (*extension).to_owned(),
            name: Vec::new(),
            offset: number as u64,
            size: 1,
            data: Some(vec![number as u8]),
            missing: None,
        };
        Sample {
            key: "a".to_owned(),
            occurrence: 0,
            members: extensions.iter().enumerate().map(member).collect(),
            problem: None,
        }
    }

    /// Returns the parts as text, with `+` after a copied member.
    fn split(extensions: &[&str], caption: Option<&str>) -> Vec<String> {
        let copy = |extension: &str, member: &Member| {
            let member = member.clone();
            Some(Member {
                extension: format!("+{extension}={}", member.offset),
                ..member
            })
        };
        let parts = split_images(sample(extensions), caption, copy);
        let parts = parts.iter().map(|part| {
            let members = part.members.iter().map(|member| member.extension.as_str());
            format!("{}: {}", part.key, members.collect::<Vec<_>>().join(" "))
        });
        parts.collect()
    }

    #[test]
    fn each_image_is_a_sample_with_its_texts() {
        for (extensions, caption, expected) in [
            (&["jpg", "txt"][..], None, &["a: jpg txt"][..]),
            (&["0.jpg", "1.jpg"], None, &["a.0: jpg", "a.1: jpg"]),
            (
                &["input.jpg", "edited.png"],
                None,
                &["a.input: jpg", "a.edited: png"],
            ),
            (&["jpg", "png"], None, &["a.jpg: jpg", "a.png: png"]),
            (&["jpg", "mask.png"], None, &["a: jpg mask.png"]),
            (
                &["json", "0.jpg", "0.txt", "1.jpg", "1.txt"],
                None,
                &["a.0: json jpg txt", "a.1: jpg txt +json=0"],
            ),
            (
                &["0.jpg", "1.jpg", "0.txt", "txt", "npy"],
                None,
                &["a.0: jpg +txt=2", "a.1: jpg 0.txt txt npy"],
            ),
            (
                &["txt", "0.jpg", "0.txt", "1.jpg", "1.txt", "txt2", "json"],
                None,
                &["a.0: shared.txt jpg txt +json=6", "a.1: jpg txt txt2 json"],
            ),
            (
                &["0.jpg", "1.jpg", "caption.txt"],
                Some("caption.txt"),
                &["a.0: jpg +caption.txt=2", "a.1: jpg caption.txt"],
            ),
        ] {
            assert_eq!(split(extensions, caption), expected, "{extensions:?}");
        }
    }

    #[test]
    fn a_problem_is_one_parts() {
        for (problem, part) in [
            (SampleProblem::DamageAfter, 1),
            (
                SampleProblem::Sparse {
                    extension: "0.jpg".to_owned(),
                },
                0,
            ),
            (
                SampleProblem::Sparse {
                    extension: "1.jpg".to_owned(),
                },
                1,
            ),
        ] {
            let sample = Sample {
                problem: Some(problem.clone()),
                ..sample(&["0.jpg", "1.jpg"])
            };
            let parts = split_images(sample, None, |_, _| None);
            let problems: Vec<_> = parts.into_iter().map(|part| part.problem).collect();
            assert_eq!(problems[part], Some(problem));
            assert_eq!(problems[1 - part], None);
        }
    }
}
