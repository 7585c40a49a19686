//! Makes text safe to show: hides credentials and escapes control characters.
//!
//! Both are applied where text leaves a program: by [`Error`]'s `Display`, the log, the result and
//! the output of commands. So it does not matter which part of a program formatted a URI or a
//! shard's name. Credentials in a URI are also rejected when the URI is parsed
//! ([`refuse_credentials`]), so no manifest or receipt contains any.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Error, Result};

/// Replaces hidden text.
const HIDDEN: char = '…';

/// Schemes whose URIs have no query. A `?` in them is a wildcard, unless `name=` follows it.
const STORES: [&str; 6] = ["s3", "gs", "az", "hf", "file", "memory"];

/// Parameters whose values are always hidden, in lower case.
const SECRET_NAMES: [&str; 6] = [
    "accountkey",
    "sharedaccesskey",
    "sharedaccesssignature",
    "secret_access_key",
    "session_token",
    "sas_token",
];

/// Parameters whose values are hidden after `?`, `&` or `;`, in lower case.
const SECRET_PARAMETERS: [&str; 8] = [
    "sig",
    "signature",
    "token",
    "key",
    "password",
    "passwd",
    "secret",
    "credential",
];

/// Returns the text with the credentials of every URI hidden: user names and passwords, queries,
/// signatures and tokens.
pub fn masked(text: &str) -> Cow<'_, str> {
    if !text.contains("://") && !text.contains(['=', '@']) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((end, separator)) = word_end(rest) {
        shown += &masked_word(&rest[..end]);
        shown.push(separator);
        rest = &rest[end + separator.len_utf8()..];
    }
    shown += &masked_word(rest);
    if shown == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(shown)
    }
}

/// Returns the end of the first word and the character after it. An escaped quote, as in JSON, does
/// not end a word.
fn word_end(text: &str) -> Option<(usize, char)> {
    let mut is_escaped = false;
    text.char_indices().find(|&(_, c)| {
        let ends = c.is_whitespace() || (c == '"' && !is_escaped);
        is_escaped = c == '\\' && !is_escaped;
        ends
    })
}

/// Like [`masked`], for a text that is one word, such as an argument: a password may contain spaces
/// and quotes.
pub fn masked_word(word: &str) -> Cow<'_, str> {
    if let Some(shown) = without_mistyped_user(word) {
        return Cow::Owned(shown);
    }
    if !word.contains("://") && !word.contains('=') {
        return Cow::Borrowed(word);
    }
    let mut shown = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((head, tail)) = rest.split_once("://") {
        shown += head;
        shown += "://";
        let scheme = head.rsplit(|c| !is_scheme(c)).next().unwrap_or_default();
        rest = without_user(tail, &mut shown);
        let end = next_uri(rest);
        if let Some(query) = query(&rest[..end], scheme) {
            shown += &rest[..query];
            shown.push(HIDDEN);
            rest = &rest[rest.trim_end_matches(PUNCTUATION).len().max(query)..];
            break;
        }
        shown += &rest[..end];
        rest = &rest[end..];
    }
    shown += rest;
    let shown = without_secrets(&shown);
    if shown == word {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(shown)
    }
}

/// Hides user and password of a URI whose slashes are mistyped: `s3:/user:password@bucket`,
/// `//user:password@host`.
fn without_mistyped_user(word: &str) -> Option<String> {
    let (head, tail) = word.rsplit_once('@')?;
    let start = match head.find(":/") {
        Some(colon) => colon + 2,
        None => head.find("//").filter(|at| !head[..*at].contains('/'))? + 2,
    };
    let user = &head[start..];
    let is_mistyped = !user.starts_with('/') && user.contains(':') && !user.contains('/');
    is_mistyped.then(|| format!("{}{HIDDEN}@{tail}", &head[..start]))
}

/// Characters that end a sentence or a quotation rather than a URI.
const PUNCTUATION: [char; 8] = [')', ']', '}', '\'', '`', '>', ',', '.'];

fn is_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.".contains(c)
}

/// Returns the part of a URI from its `@` on, and replaces the user name and password before it. A
/// password may contain slashes that should have been encoded.
fn without_user<'t>(tail: &'t str, shown: &mut String) -> &'t str {
    let uri = &tail[..next_uri(tail)];
    let authority = uri.split(['/', '?', '#']).next().unwrap_or_default();
    let at = authority.rfind('@').or_else(|| {
        let has_password = authority.contains(':');
        uri.rfind('@').filter(|_| has_password)
    });
    let Some(at) = at else {
        return tail;
    };
    shown.push(HIDDEN);
    &tail[at..]
}

/// Returns the start of the next URI in a word, or the end of the word.
fn next_uri(text: &str) -> usize {
    match text.find("://") {
        Some(at) => text[..at].trim_end_matches(is_scheme).len(),
        None => text.len(),
    }
}

/// Returns the start of the values in a URI's query or fragment.
fn query(uri: &str, scheme: &str) -> Option<usize> {
    let is_store = STORES
        .iter()
        .any(|store| store.eq_ignore_ascii_case(scheme));
    let marks = uri.match_indices(['?', '#']);
    let mut queries = marks.filter(|(at, mark)| {
        let named = name_before(uri[at + 1..].split('=').next().unwrap_or_default());
        let is_pair = uri[at + 1..]
            .strip_prefix(named)
            .is_some_and(|rest| !named.is_empty() && rest.starts_with('='));
        is_pair || (*mark == "?" && !is_store)
    });
    queries.next().map(|(at, _)| at + 1)
}

/// Returns the parameter name at the end of a text.
fn name_before(text: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.%".contains(c);
    &text[text.trim_end_matches(is_name).len()..]
}

/// Hides the values of parameters whose name marks them as secret.
fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('=') {
        shown += head;
        shown.push('=');
        rest = tail;
        let name = name_before(head);
        let before = head[..head.len() - name.len()].chars().next_back();
        // `==` is a comparison in a rule.
        if is_secret(name, before) && !tail.starts_with('=') {
            let end = tail.find(['&', ';', ',', '\'', ')']).unwrap_or(tail.len());
            shown.push(HIDDEN);
            rest = &tail[end..];
        }
    }
    shown + rest
}

fn is_secret(name: &str, before: Option<char>) -> bool {
    let name = name.to_ascii_lowercase();
    let is_signed = name.contains("x-amz-") || name.contains("x-goog-");
    let is_named = SECRET_NAMES.iter().any(|secret| name.ends_with(secret));
    let is_parameter = before.is_some_and(|c| "?&;".contains(c))
        && SECRET_PARAMETERS
            .iter()
            .any(|secret| name.ends_with(secret));
    is_signed || is_named || is_parameter
}

/// Rejects a URI that contains credentials: they would appear in logs, manifests and receipts.
///
/// # Errors
///
/// Returns a usage error, which does not repeat the credentials.
pub fn refuse_credentials(uri: &str) -> Result<()> {
    let shown = masked_word(uri);
    if !uri.contains("://") || shown == uri {
        return Ok(());
    }
    let what = "a user name, a password or a signature in a URI";
    Err(Error::usage(format!("{shown}: {what}"))
        .hint("give credentials by the environment, as the cloud's own tools take them"))
}

/// Hides the credentials in all texts of a JSON value.
pub fn mask_json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = masked(text) {
                *text = shown;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_json),
        Value::Object(fields) => fields.values_mut().for_each(mask_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns whether a character moves the cursor, changes colours, or changes the order of the
/// characters around it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_safe = |c: char| !steers(c) || stays(c);
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_safe(c) {
            shown.push(c);
        } else {
            // All such characters are below U+10000. In JSON, the escape is the character itself.
            shown += &format!("\\u{:04x}", u32::from(c));
        }
    }
    Cow::Owned(shown)
}

/// Returns a text that is safe to print on a terminal: control characters, escape sequences and
/// overrides of the writing direction become `\u001b`. Line feeds and tabs are kept. JSON keeps its
/// value.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || c == '\t')
}

/// Like [`visible`], on one line: for external names and values, which could imitate a line of our
/// output.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Returns a text that is [`masked`] and [`visible`].
pub fn safe(text: &str) -> Cow<'_, str> {
    match masked(text) {
        Cow::Borrowed(text) => visible(text),
        Cow::Owned(text) => Cow::Owned(visible(&text).into_owned()),
    }
}

/// Returns a message for people: [`safe`], with all lines after the first one indented.
pub fn shown(message: &str) -> String {
    let message = safe(message);
    let mut lines = message.split('\n');
    let mut text = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let indent = if line.starts_with("  ") { "" } else { "  " };
        text.extend(["\n", indent, line]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text, and how it is shown.
    const CREDENTIALS: &[(&str, &str)] = &[
        // Text without credentials is not changed.
        ("s3://bucket/a b/c@d#1", "s3://bucket/a b/c@d#1"),
        (
            "s3://b/train-?.tar and s3://b/*",
            "s3://b/train-?.tar and s3://b/*",
        ),
        ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
        ("--min=aesthetic=5 key=3 a?b", "--min=aesthetic=5 key=3 a?b"),
        ("--rule=a=x>=2&&key==3", "--rule=a=x>=2&&key==3"),
        ("/data/a@b:c/x.tar", "/data/a@b:c/x.tar"),
        ("s3://b/year=2024/x.tar", "s3://b/year=2024/x.tar"),
        // User names and passwords, in any scheme.
        ("s3://u:HUSH@b/x", "s3://…@b/x"),
        ("S3://u:HUSH@b", "S3://…@b"),
        ("https://u:HUSH@h:80/x: gone", "https://…@h:80/x: gone"),
        ("HTTPS://HUSH@h", "HTTPS://…@h"),
        ("git+ssh://u:HU@SH@h/x@y", "git+ssh://…@h/x@y"),
        ("https://u:HU/SH?HUSH@h/x", "https://…@h/x"),
        ("--a=s3://x,s3://u:HUSH@b", "--a=s3://x,s3://…@b"),
        ("(endpoint http://u:HUSH@h)", "(endpoint http://…@h)"),
        // Queries.
        ("https://h/x?HUSH", "https://h/x?…"),
        (
            "AWS_ENDPOINT_URL=http://h/?x=HUSH",
            "AWS_ENDPOINT_URL=http://h/?…",
        ),
        (
            "see (https://h/x?a=1&sig=HUSH), next",
            "see (https://h/x?…), next",
        ),
        ("s3://b/x?X-Amz-Signature=HUSH&y=1", "s3://b/x?…"),
        ("az://c/x?sv=1&SIG=HUSH", "az://c/x?…"),
        ("gs://b/x#access_token=HUSH", "gs://b/x#…"),
        ("https://h/?next=https://i/?t=HUSH", "https://h/?…"),
        // With other slashes.
        ("s3:/u:HUSH@b/x", "s3:/…@b/x"),
        ("--input=https:/u:HUSH@h/x", "--input=https:/…@h/x"),
        ("//u:HUSH@h/x", "//…@h/x"),
        ("shard/a:1@2.jpg", "shard/a:1@2.jpg"),
        // Without a scheme.
        ("h/c/x?sv=1&sig=HUSH gone", "h/c/x?sv=1&sig=… gone"),
        ("x-amz-security-token=HUSH", "x-amz-security-token=…"),
        ("&X-Goog-Credential=HUSH&a", "&X-Goog-Credential=…&a"),
        (
            "AccountName=a;AccountKey=HU+SH==;B=c",
            "AccountName=a;AccountKey=…;B=c",
        ),
        ("AWS_SECRET_ACCESS_KEY=HUSH x", "AWS_SECRET_ACCESS_KEY=… x"),
        // In JSON.
        (
            r#"{"a":"s3://u:H\"USH@b","b":"c@d"}"#,
            r#"{"a":"s3://…@b","b":"c@d"}"#,
        ),
        (
            r#"{"url":"https://h/?sig=HUSH","n":1}"#,
            r#"{"url":"https://h/?…","n":1}"#,
        ),
    ];

    #[test]
    fn credentials_are_hidden_in_every_uri() {
        for (text, expected) in CREDENTIALS {
            assert_eq!(masked(text), *expected, "{text}");
            assert_eq!(masked(expected), *expected);
            assert!(!expected.contains("HUSH"));
        }
    }

    #[test]
    fn a_word_may_hold_spaces_and_quotes() {
        for word in [
            "https://u:HU \"SH@h",
            "--a=https://u:HU SH@h",
            "s3://b/?sig=HU SH",
        ] {
            assert!(!masked_word(word).contains("SH"), "{word}");
        }
    }

    #[test]
    fn uris_with_credentials_are_refused_without_repeating_them() {
        for (uri, shown) in CREDENTIALS {
            let Err(error) = refuse_credentials(uri) else {
                continue;
            };
            assert_ne!(uri, shown);
            let text = error.to_string();
            assert!(
                !text.contains("HUSH") && text.contains("environment"),
                "{text}"
            );
        }
        for uri in [
            "S3://u:HUSH@b",
            "https://h/x?HUSH",
            "az://c/x?sv=1&SIG=HUSH",
        ] {
            assert!(refuse_credentials(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn all_texts_of_a_value_are_masked() {
        let mut value =
            serde_json::json!({"a": ["s3://u:HUSH@b", 1], "b": {"c": "http://h/?HUSH"}});
        mask_json(&mut value);
        let expected = serde_json::json!({"a": ["s3://…@b", 1], "b": {"c": "http://h/?…"}});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_terminal_is_not_steered() {
        for (text, expected) in [
            ("é 日本 👩‍👧", "é 日本 👩‍👧"),
            ("\x1b[31mred\x07", r"\u001b[31mred\u0007"),
            ("\x1b]0;title\x1b\\", r"\u001b]0;title\u001b\"),
            ("\u{9b}31m\u{7f}", r"\u009b31m\u007f"),
            ("a\u{202e}b\u{2066}c\u{200f}", r"a\u202eb\u2066c\u200f"),
            ("a\rb\u{8}", r"a\u000db\u0008"),
        ] {
            assert_eq!(visible(text), expected);
            assert_eq!(one_line(text), expected);
        }
        assert_eq!(visible("a\n\tb"), "a\n\tb");
        assert_eq!(one_line("a\n\tb"), r"a\u000a\u0009b");
        let json = serde_json::to_string("\u{9b}\u{202e}\x1b").unwrap();
        let read: String = serde_json::from_str(&visible(&json)).unwrap();
        assert_eq!(read, "\u{9b}\u{202e}\x1b");
    }

    #[test]
    fn a_message_does_not_imitate_the_next_line() {
        assert_eq!(shown("a\nb\n  hint: c"), "a\n  b\n  hint: c");
    }
}
