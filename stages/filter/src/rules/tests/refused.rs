//! Tables of rules that compile and rules that are refused, with messages and hints.

use super::*;

/// Rules that cannot pass, or name what does not exist: expression, message and hint.
const REFUSED: &[(&str, &str, &str)] = &[
    ("", "the expression is empty", ""),
    (" \n", "the expression is empty", ""),
    (
        "width >= ",
        "syntax error at column 10: unexpected end of expression",
        "",
    ),
    (
        "width >= 3)",
        "syntax error at column 11: unexpected ')'",
        "",
    ),
    (
        "min(width, height >= 3",
        "syntax error at column 23: missing ')' at end of expression",
        "",
    ),
    (
        "width = 3",
        "syntax error at column 7: unexpected '= '",
        EQUALS,
    ),
    (
        "width => 3",
        "syntax error at column 7: unexpected '=>'",
        EQUALS,
    ),
    (
        "width > 3 and height > 3",
        "syntax error at column 11: unexpected 'and'",
        AND,
    ),
    (
        "width > 3 &&\n  height >",
        "syntax error at line 2, column 11: unexpected end of expression",
        "",
    ),
    (
        r"caption.matches('\d')",
        r"syntax error at column 17: unexpected ''\d'",
        RAW,
    ),
    (
        "caption == 'x",
        "syntax error at column 12: unexpected ''x'",
        "",
    ),
    (
        "99999999999999999999 > 1",
        "syntax error at column 1: invalid int literal",
        "",
    ),
    (
        "has(width)",
        "syntax error at column 5: invalid argument to has() macro",
        HAS,
    ),
    (
        "metadata.?a == 1",
        "syntax error at column 9: unsupported syntax '.?'",
        "",
    ),
    (
        "widht >= 3",
        "unknown variable \"widht\"",
        "did you mean width?",
    ),
    (
        "Caption == ''",
        "unknown variable \"Caption\"",
        "did you mean caption?",
    ),
    (
        ".width > 3",
        "unknown variable \".width\"",
        "did you mean width?",
    ),
    (
        "nsfw-step > 0.5",
        "unknown variable \"nsfw\"",
        "`-` is a minus sign in expressions: write nsfw_step",
    ),
    (
        "clip-b > 0.5",
        "unknown variable \"clip\"",
        "`-` is a minus sign in expressions: write clip_b",
    ),
    (
        "metadata.a-b == 1",
        "unknown variable \"b\"",
        "`-` is a minus sign in expressions: write metadata[\"…-b\"]",
    ),
    ("[1].all(x, y > 1)", "unknown variable \"y\"", KNOWN),
    (
        "[1].all(x, x > 0) && x > 0",
        "unknown variable \"x\"",
        KNOWN,
    ),
    ("nsfw5.hentai > 0.5", "unknown score nsfw5.hentai", OUTPUTS),
    (
        "nsfw5['hentai'] > 0.5",
        "unknown score nsfw5[\"hentai\"]",
        OUTPUTS,
    ),
    ("has(nsfw5.hentai)", "unknown score nsfw5.hentai", OUTPUTS),
    (
        "nsfw5 > 0.5",
        "nsfw5 is map, compared with double",
        "choose an output: nsfw5.drawing",
    ),
    (
        "aesthetic.score > 0.5",
        "aesthetic is double, it has no such field or item",
        "",
    ),
    (
        "lower(caption) == 'a'",
        "unknown function \"lower\"",
        FUNCTIONS,
    ),
    (
        "caption.startswith('a')",
        "unknown function \"startswith\"",
        "write text.startsWith('start')",
    ),
    (
        "contains(caption, 'a')",
        "unknown function \"contains\"",
        "write text.contains('word')",
    ),
    (
        "has(metadata.a, 1)",
        "unknown function \"has\"",
        "write has(metadata.field)",
    ),
    (
        "width.min(3) > 1",
        "unknown function \"min\"",
        "write min(a, b)",
    ),
    (
        "caption.matches('a', 'b')",
        "unknown function \"matches\"",
        "write text.matches('pattern')",
    ),
    (
        "caption.matches('(a')",
        "invalid pattern: unclosed group",
        "",
    ),
    (
        "matches(metadata.a, '[')",
        "invalid pattern: unclosed character class",
        "",
    ),
    (
        r"caption.matches(r'\w{900}')",
        "the pattern is too large",
        "",
    ),
    (
        "google.Any{a: 1} == 3",
        "unknown message type \"google.Any\"",
        "",
    ),
    ("1", "the value is int, not true or false", ""),
    ("'x'", "the value is string, not true or false", ""),
    ("null", "the value is null, not true or false", ""),
    ("width", "width is int, not true or false", ""),
    (
        "metadata.a + 1 > 2 ? 1 : 2",
        "the value is int, not true or false",
        "",
    ),
    ("width + 1", "the value is int, not true or false", ""),
    ("[width > 1]", "the value is list, not true or false", ""),
    (
        "metadata.a.map(x, x)",
        "the value is list, not true or false",
        "",
    ),
    ("nsfw5", "nsfw5 is map, not true or false", ""),
    ("!width", "width is int, not true or false", ""),
    ("width && metadata.a", "width is int, not true or false", ""),
    (
        "metadata.a || caption",
        "caption is string, not true or false",
        "",
    ),
    (
        "width ? true : false",
        "width is int, not true or false",
        "",
    ),
    ("width > '3'", "width is int, compared with string", ""),
    ("'3' < width", "width is int, compared with string", ""),
    ("width == '3'", "width is int, compared with string", ""),
    ("caption != 3", "caption is string, compared with int", ""),
    (
        "width in ['3', '4']",
        "width is int, compared with string",
        "",
    ),
    ("width > null", "width is int, compared with null", ""),
    ("caption + 3 == ''", "+ does not take string and int", ""),
    ("aspect % 2 == 1", "% does not take double and int", ""),
    ("-caption == ''", "caption is string, not a number", ""),
    ("size(width) > 3", "size does not take (int)", ""),
    (
        "width.contains('3')",
        "contains does not take (int, string)",
        "",
    ),
    (
        "width.matches('3')",
        "matches does not take (int, string)",
        "",
    ),
    ("width.all(x, x > 1)", "width is int, not a list or map", ""),
    ("width in height", "in does not take int and int", ""),
    (
        "width[0] == 1",
        "width is int, it has no such field or item",
        "",
    ),
    (
        "min(caption, width) == 1",
        "min does not take (string, int)",
        "",
    ),
];

const EQUALS: &str = "compare with ==, >= or <=";
const AND: &str = "CEL writes && for and, || for or, ! for not";
const HAS: &str = "write has(metadata.field), or 'a-b' in metadata for other keys";
const RAW: &str = r"write patterns as raw strings: caption.matches(r'\d+')";
const OUTPUTS: &str = "outputs: drawing, porn, sexy";
const KNOWN: &str = "known: image_id, shard, key, format, image_extension, sha256, caption, width, \
    height, orientation, bytes, pixels, aspect, dark, light, blurry, low_information, aesthetic, \
    nsfw_step, clip_b, broken, metadata, nsfw5";
const FUNCTIONS: &str = "functions: all, contains, double, endsWith, exists, exists_one, filter, \
    has, int, map, matches, max, min, size, startsWith, string";

#[test]
fn rules_that_are_refused() {
    for (text, message, hint) in REFUSED {
        let error = compile(text)
            .err()
            .unwrap_or_else(|| panic!("{text} compiles"));
        let shown = text.trim().replace('\n', " ");
        assert_eq!(error.message, format!("rule rule: {message} in `{shown}`"));
        assert_eq!(error.hint.as_deref().unwrap_or_default(), *hint, "{text}");
    }
}

/// Valid rules that a careless check would refuse.
#[test]
fn rules_that_compile() {
    for text in [
        "metadata.a == '3' && metadata.b > 1 && metadata.c.contains('x') && metadata.d",
        "metadata[key] == 1 && metadata[key].a[0] > 2 && key in metadata",
        "int(caption) > 3 && double(caption) > 3.0",
        "width / 0 == 1 || 1 % 0 == 1",
        "[1, 2][width] == 1 && {'a': 1}[format] > 0 && [1, 'a'][width] == 1",
        "(metadata.a ? 1 : 'x') == 'x' && (metadata.a && metadata.b) == true",
        "light == null && format != null && null == null && 1 == 1.0 && 1u == 1",
        "width in [metadata.a, 'x'] && width in [1, 'x'] && width in [] && width in [1.5]",
        "min(width, aspect) > 1 && min(metadata.a, 3) > 1 && max(metadata.l) > 1",
        "metadata.l.filter(x, x > 1).size() > 0 && metadata.l.map(x, x * 2)[0] == 2",
        "metadata.l.exists(width, width > 1) && [[1]].all(x, x.all(y, y > 0))",
        "metadata.exists(k, metadata[k] == 1) && type(metadata.a) == string && dyn(width) == 3",
        "caption.matches('a' + 'b') && caption.matches(metadata.pattern)",
        "has(nsfw5.porn) && 'porn' in nsfw5 && size(nsfw5) == 3 && nsfw5.all(k, nsfw5[k] > 0.5)",
        r#"caption == r'\d' && caption == '''a\nb''' && caption == "it's""#,
        "['a'].exists(width, 'b' in [width + 'b'] || 'a' in width || width.contains('a'))",
        "['a'].exists(width, size([1].map(y, width + 'b')) > 0 && min([width]) == 'a')",
        "['a'].exists(width, (width + 'b' == 'ab' ? 1 : 2) == 1 && nsfw5.porn > 0.5)",
        "[{'hentai': 1}].exists(nsfw5, nsfw5.hentai > 0.5 && has(nsfw5.sexy) && nsfw5['x'] == 1)",
        "bytes > 1000 && bytes('a') == b'a' // a comment",
    ] {
        if let Err(error) = compile(text) {
            panic!("{text}: {error:?}");
        }
    }
}

#[test]
fn names_of_rules() {
    let compile = |names: &[&str]| {
        let rule = |name: &&str| ((*name).to_owned(), "true".to_owned());
        let rules: Vec<_> = names.iter().map(rule).collect();
        RuleSet::compile(&rules, &[])
            .map(|_| ())
            .map_err(|error| error.message)
    };
    assert_eq!(compile(&["a", "large-2", "with_text"]), Ok(()));
    assert_eq!(
        compile(&["a", "b", "a"]),
        Err("rule a: the name occurs twice".to_owned())
    );
    for name in ["", "A", "2x", "-x", "a b", "é", "a.b", "a\n"] {
        let refused = compile(&[name]).expect_err(name);
        assert!(refused.ends_with("is not a rule name"), "{refused}");
    }
}
