//! The models that Sluice knows by name.

use std::sync::LazyLock;

use crate::spec::Spec;

macro_rules! specs {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../catalogue/", $name, ".toml")))),*]
    };
}

static CATALOGUE: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let files = specs![
        "clip-vit-l14",
        "clip-vit-b32",
        "siglip-base",
        "siglip2-base",
        "dinov2-small",
        "dinov2-base",
        "efficientnet-lite0",
        "laion-aesthetic-v2",
        "laion-aesthetic-v1",
        "laion-aesthetic-v1-b32",
        "laion-nsfw",
        "laion-nsfw-b32",
        "opennsfw",
        "vit-nsfw",
        "technical-quality",
    ];
    let parse = |(name, text)| {
        // Unwrap safety: the specs are part of the program, and the tests parse each.
        Spec::parse(text, name).expect("built-in specs are sound")
    };
    files.into_iter().map(parse).collect()
});

/// The built-in specs.
pub fn catalogue() -> &'static [Spec] {
    &CATALOGUE
}

/// The built-in spec of that name.
pub fn named(name: &str) -> Option<&'static Spec> {
    catalogue().iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Kind;

    #[test]
    fn specs_are_sound_and_heads_know_their_embedders() {
        for spec in catalogue() {
            assert!(
                !spec.licence.is_empty() && !spec.origin.is_empty(),
                "{}",
                spec.name
            );
            let source = spec.source.as_ref();
            let pinned = source.is_some_and(|source| source.sha256.is_some());
            assert_eq!(pinned, spec.kind != Kind::Measure, "{}", spec.name);
            if spec.kind == Kind::Head {
                let embedder = spec.embedder.as_deref().and_then(named).unwrap();
                assert_eq!(
                    (embedder.kind, embedder.dimension),
                    (Kind::Embedder, spec.dimension)
                );
            }
        }
    }
}
