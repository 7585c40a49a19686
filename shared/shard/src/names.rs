//! Member names: splitting off the key, conversion to text, and names that are safe to write.

use std::fmt::Write as _;

/// Splits a member name into key and extension by WebDataset's rule, `^((?:.*/|)[^.]+)[.]([^/]*)$`
/// (webdataset `tariterators.base_plus_ext`): the key ends before the first dot of the name's last
/// component.
///
/// Returns `None` if the last component has no dot or starts with one. This differs from the regex,
/// which accepts `a/.b` (key `a/`) but neither `.b` nor `a.c/.b`.
///
/// ```
/// # use sluice_shard::split_key;
/// assert_eq!(split_key(b"set.v2/0001.mask.png"), Some((&b"set.v2/0001"[..], &b"mask.png"[..])));
/// assert_eq!(split_key(b"a/._photo.jpg"), None);
/// ```
pub fn split_key(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let last = last_part(name);
    let dot = last + name[last..].iter().position(|&byte| byte == b'.')?;
    (dot > last).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Returns the name without the `./` that `tar -C folder .` adds to every name.
pub(crate) fn without_dot(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

/// Returns whether the last component of a name has a dot.
pub(crate) fn has_extension(name: &[u8]) -> bool {
    name[last_part(name)..].contains(&b'.')
}

/// Returns whether WebDataset's readers skip the name: `__name__` or `__name__/…`.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    let first = name.split(|&byte| byte == b'/').next().unwrap_or(name);
    first.len() >= 4 && first.starts_with(b"__") && first.ends_with(b"__")
}

fn last_part(name: &[u8]) -> usize {
    name.iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1)
}

/// Converts bytes to text. UTF-8 is unchanged; every other byte becomes `\xNN`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Returns a safe name for a member of an output shard: `image_id`, a dot, `extension`.
///
/// These are percent-encoded (as UTF-8 bytes, `%2F`): `%` itself, control characters and
/// backslashes; components `.` and `..`; a slash next to an empty component, so that no component
/// is empty and the name is not absolute; dots in the last component of `image_id`, which would end
/// the key; the colon after a leading drive letter; and the first `_` of a leading `__part__`,
/// which WebDataset's readers skip. Spaces, accents and emoji are unchanged.
///
/// Decoding returns the two arguments, so different arguments give different names. (An empty
/// `image_id`, which no run has, becomes a single `%`.) The key of the name, by [`split_key`], is
/// the encoded `image_id`.
///
/// ```
/// # use sluice_shard::safe_member_name;
/// assert_eq!(safe_member_name("a/0001", "jpg"), "a/0001.jpg");
/// assert_eq!(safe_member_name("a/../../x", "jpg"), "a/%2E%2E/%2E%2E/x.jpg");
/// assert_eq!(safe_member_name("/tmp/v1.2", "jpg"), "%2Ftmp/v1%2E2.jpg");
/// ```
pub fn safe_member_name(image_id: &str, extension: &str) -> String {
    let parts = parts_of(image_id);
    let mut name = String::with_capacity(image_id.len() + extension.len() + 8);
    for (i, part) in parts.iter().enumerate() {
        let (first, last) = (i == 0, i + 1 == parts.len());
        let mut rest = part.as_str();
        if first && rest.starts_with("__") {
            let end = if last { extension } else { rest };
            if end.ends_with("__") {
                name.push_str("%5F");
                rest = &rest[1..];
            }
        }
        let dots = last || matches!(rest, "." | "..");
        let drive = first && is_drive(rest);
        for (at, c) in rest.char_indices() {
            match c {
                '.' if dots => name.push_str("%2E"),
                ':' if drive && at == 1 => name.push_str("%3A"),
                '/' => name.push_str("%2F"),
                c => encode_char(c, &mut name),
            }
        }
        name.push(if last { '.' } else { '/' });
    }
    if parts.is_empty() {
        name.push_str("%.");
    }
    for c in extension.chars() {
        match c {
            '/' => name.push_str("%2F"),
            _ => encode_char(c, &mut name),
        }
    }
    name
}

/// Splits an id at slashes into components that are not empty. An empty component takes the next
/// slash as its text (`a//b`: `a`, `/b`); at the end, the previous component does (`a/`: `a/`).
/// Joined by slashes, they give the id.
fn parts_of(image_id: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut open = String::new();
    let mut rest = image_id.split('/').peekable();
    while let Some(part) = rest.next() {
        open.push_str(part);
        if rest.peek().is_none() {
            match (open.is_empty(), parts.last_mut()) {
                (false, _) => parts.push(std::mem::take(&mut open)),
                (true, Some(before)) => before.push('/'),
                (true, None) => {}
            }
        } else if open.is_empty() {
            open.push('/');
        } else {
            parts.push(std::mem::take(&mut open));
        }
    }
    parts
}

fn is_drive(part: &str) -> bool {
    matches!(part.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn encode_char(c: char, into: &mut String) {
    if c == '%' || c == '\\' || c.is_control() {
        let mut utf8 = [0; 4];
        for byte in c.encode_utf8(&mut utf8).bytes() {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    } else {
        into.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(name: &str) -> Vec<u8> {
        let (mut out, bytes) = (Vec::new(), name.as_bytes());
        let mut i = 0;
        while i < bytes.len() {
            if bytes[i] == b'%' && i + 3 <= bytes.len() {
                out.push(u8::from_str_radix(&name[i + 1..i + 3], 16).unwrap());
                i += 3;
            } else {
                out.push(bytes[i]);
                i += 1;
            }
        }
        out
    }

    #[test]
    fn keys() {
        let split = |name: &'static str| {
            split_key(name.as_bytes())
                .map(|(key, ext)| (text(key).to_string(), text(ext).to_string()))
        };
        let is = |key: &str, ext: &str| Some((key.to_owned(), ext.to_owned()));
        assert_eq!(split("0001.jpg"), is("0001", "jpg"));
        assert_eq!(split("v1.2.final.jpg"), is("v1", "2.final.jpg"));
        assert_eq!(split("set.v2/0001.jpg"), is("set.v2/0001", "jpg"));
        assert_eq!(split("./a.jpg"), is("./a", "jpg"));
        assert_eq!(split("/tmp/a.jpg"), is("/tmp/a", "jpg"));
        assert_eq!(split("a."), is("a", ""));
        for none in [
            "", ".jpg", "._p.jpg", "noext", "..", "a/.b", "a.b/c", "a.b/", "/",
        ] {
            assert_eq!(split(none), None, "{none:?}");
        }
    }

    #[test]
    fn names_as_text() {
        assert_eq!(text("café猫".as_bytes()), "café猫");
        assert_eq!(text(b"caf\xe9-latin1"), "caf\\xe9-latin1");
    }

    #[test]
    fn reserved_names() {
        for yes in ["__meta__", "__meta__/x.jpg", "____"] {
            assert!(is_reserved(yes.as_bytes()), "{yes}");
        }
        for no in ["__", "___", "__a__.jpg", "__MACOSX/a.jpg", "a/__b__/c.jpg"] {
            assert!(!is_reserved(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn safe_names() {
        for (image_id, name) in [
            ("s/0001", "s/0001.jpg"),
            ("s/with space 猫🐈 é", "s/with space 猫🐈 é.jpg"),
            ("s/../../evil", "s/%2E%2E/%2E%2E/evil.jpg"),
            ("s//tmp/abs", "s/%2Ftmp/abs.jpg"),
            ("/abs", "%2Fabs.jpg"),
            ("//abs", "%2F/abs.jpg"),
            ("a/", "a%2F.jpg"),
            ("a//", "a/%2F.jpg"),
            ("/", "%2F.jpg"),
            ("", "%.jpg"),
            (".", "%2E.jpg"),
            ("..", "%2E%2E.jpg"),
            ("set.v2/v1.2", "set.v2/v1%2E2.jpg"),
            ("C:\\evil3", "C%3A%5Cevil3.jpg"),
            ("new\nline%", "new%0Aline%25.jpg"),
            ("__meta__/1", "%5F_meta__/1.jpg"),
            ("__a__", "__a__.jpg"),
        ] {
            assert_eq!(safe_member_name(image_id, "jpg"), name);
        }
        assert_eq!(safe_member_name("a", "../x\\y"), "a...%2Fx%5Cy");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn split_key_is_the_regex(name in "[a./\n\u{e9}]{0,12}") {
            // `(?s)`: our dot matches line feeds, Python's does not.
            let rule = regex::Regex::new(r"(?s)^((?:.*/|)[^.]+)[.]([^/]*)$").unwrap();
            let expected = rule.captures(&name).map(|found| {
                (found.get(1).unwrap().as_str().as_bytes(), found.get(2).unwrap().as_str().as_bytes())
            });
            match (split_key(name.as_bytes()), expected) {
                (None, Some((key, _))) => prop_assert!(key.ends_with(b"/"), "{name:?}"),
                (ours, expected) => prop_assert_eq!(ours, expected),
            }
        }

        #[test]
        fn safe_names_are_safe_and_can_be_decoded(
            image_id in "([ab.%/_\\\\:é\u{1}\u{85}]|\\.\\./|__){0,12}",
            extension in "[a.%/\\\\_é\u{1}]{0,6}",
        ) {
            let name = safe_member_name(&image_id, &extension);
            let parts: Vec<&str> = name.split('/').collect();
            prop_assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{name:?}");
            prop_assert!(!name.chars().any(|c| c.is_control() || c == '\\'), "{name:?}");
            prop_assert!(!is_drive(&name) && !is_reserved(name.as_bytes()), "{name:?}");
            let (key, ext) = split_key(name.as_bytes()).expect("a key");
            if !image_id.is_empty() {
                prop_assert_eq!(decode(std::str::from_utf8(key).unwrap()), image_id.as_bytes());
            }
            prop_assert_eq!(decode(std::str::from_utf8(ext).unwrap()), extension.as_bytes());
        }
    }
}
