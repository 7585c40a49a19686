//! Tables of rules and rows: what passes, and what the details say.

mod limits;
mod refused;

use super::*;

fn variables() -> Vec<Variable> {
    let texts = [
        "image_id",
        "shard",
        "key",
        "format",
        "image_extension",
        "sha256",
        "caption",
    ];
    let ints = ["width", "height", "orientation", "bytes", "pixels"];
    let floats = ["aspect", "dark", "light", "blurry", "low_information"];
    let scores = ["aesthetic", "nsfw_step", "clip_b", "broken"];
    let outputs = ["drawing", "porn", "sexy"].map(str::to_owned).to_vec();
    let named = |names: &[&str], kind: VariableKind| {
        let variable = |name: &&str| Variable {
            name: (*name).to_owned(),
            kind: kind.clone(),
        };
        names.iter().map(variable).collect::<Vec<_>>()
    };
    [
        named(&texts, VariableKind::Text),
        named(&ints, VariableKind::Int),
        named(&floats, VariableKind::Float),
        named(&scores, VariableKind::Score),
        named(&["metadata"], VariableKind::Json),
        named(&["nsfw5"], VariableKind::ScoreMap(outputs)),
    ]
    .concat()
}

/// Returns the row that the tables use. `clip_b` is missing, `broken` and `sexy` are NaN.
fn row(metadata: Option<&str>) -> SampleValues<'_> {
    let mut row = SampleValues::default();
    row.set("image_id", "00000/000001");
    row.set("shard", "00000");
    row.set("key", "000001");
    row.set("format", "jpeg");
    row.set("image_extension", Some("jpg"));
    row.set("width", 320);
    row.set("height", 200);
    row.set("orientation", 1);
    row.set("bytes", 9_223_372_036_854_775_807);
    row.set("pixels", 64_000);
    row.set("aspect", 1.6);
    row.set("sha256", "9f86d0");
    row.set("dark", f64::from(0.3_f32));
    row.set("light", None::<f64>);
    row.set("blurry", f64::NAN);
    row.set("low_information", 0.0);
    row.set("caption", "A red\nbicycle, \u{1b}[31mcafé");
    row.set("aesthetic", 5.5);
    row.set("nsfw_step", 0.02);
    row.set("broken", f64::NAN);
    let scores = vec![("drawing", 0.25), ("porn", 0.75), ("sexy", f64::NAN)];
    row.set("nsfw5", Value::Scores(scores));
    row.set("metadata", Value::json(metadata));
    row
}

fn compile(text: &str) -> Result<RuleSet, RuleError> {
    RuleSet::compile(&[("rule".to_owned(), text.to_owned())], &variables())
}

/// Returns `pass`, or the detail.
fn outcome(text: &str, metadata: Option<&str>) -> String {
    let rules = compile(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let failure = rules.first_failure(&row(metadata));
    failure.map_or("pass".to_owned(), |failure| failure.detail)
}

#[track_caller]
fn assert_outcomes(metadata: Option<&str>, table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(outcome(text, metadata), *expected, "{text} on {metadata:?}");
    }
}

#[test]
fn columns_and_scores() {
    assert_outcomes(
        None,
        &[
            ("width >= 256", "pass"),
            ("width >= 256.5 && 320.0 == width", "pass"),
            ("width >= 512", "width 320"),
            ("width < height || height > 500", "width 320, height 200"),
            ("min(width, height) >= 256", "width 320, height 200"),
            (
                "max(width, height, 1.5) == 320 && min([3, 2.5]) == 2.5",
                "pass",
            ),
            (
                "min(width, aspect) < 2 && max(aspect, width) > 319.5",
                "pass",
            ),
            ("aspect <= 3", "pass"),
            ("aspect <= 1.5", "aspect 1.6"),
            ("dark > 0.31", "dark 0.3"),
            ("low_information == 0", "pass"),
            ("aesthetic >= 5", "pass"),
            (
                "aesthetic >= 6 || nsfw_step > 0.5",
                "aesthetic 5.5, nsfw_step 0.02",
            ),
            (
                "nsfw5.drawing + nsfw5.porn < 1.0",
                "nsfw5.drawing 0.25, nsfw5.porn 0.75",
            ),
            (
                "nsfw5['drawing'] < 0.5 && has(nsfw5.porn) && !has(nsfw5.sexy)",
                "pass",
            ),
            (
                "nsfw5.all(output, nsfw5[output] < 0.5)",
                "nsfw5 {\"drawing\": 0.25, \"porn\": 0.75}",
            ),
            ("format in ['png', 'jpeg']", "pass"),
            ("format == 'png'", "format \"jpeg\""),
            (
                "sha256.startsWith('9f') && key.endsWith('1') && size(shard) == 5",
                "pass",
            ),
            ("caption.contains('red') && caption.size() == 24", "pass"),
            ("caption == 'x'", "caption \"A red bicycle,  [31mcafé\""),
            (
                "caption.matches(r'(?i)\\bBICYCLE\\b') && !matches(caption, 'dog|cat')",
                "pass",
            ),
            (
                "['red', 'blue'].exists(word, caption.matches(word))",
                "pass",
            ),
            ("width % 2 == 0 ? true : false", "pass"),
            ("true", "pass"),
            ("false", "the rule reads no values and gives false"),
        ],
    );
}

#[test]
fn arithmetic_mixes_ints_and_doubles() {
    assert_outcomes(
        None,
        &[
            (
                "width * 1.5 == 480.0 && 1.5 * width == 480 && -width + 1 == -319",
                "pass",
            ),
            (
                "width / height == 1 && width / 200.0 == 1.6 && width % 7 == 5",
                "pass",
            ),
            ("double(width) / double(height) == aspect", "pass"),
            (
                "int(aspect) == 1 && string(width) == '320' && key + 'a' == '000001a'",
                "pass",
            ),
            (
                "[1] + [width] == [1, 320] && [1, 2].map(x, x * 1.5) == [1.5, 3]",
                "pass",
            ),
            ("[1, 2, 3].exists_one(x, x + 0.5 > 3)", "pass"),
            ("width / (height - 200) > 1", "division by zero"),
            ("width % (height - 200) > 1", "division by zero"),
            ("aspect / low_information > 1.0", "division by zero"),
            ("aspect / 0 > 1", "division by zero"),
            ("bytes + 1 > 0", "the result of + is too large"),
            ("bytes * bytes > 0", "the result of * is too large"),
            (
                "!(aspect * 1e308 * 1e308 > 1.0)",
                "the result of * is too large",
            ),
            ("double('NaN') != 1.0", "double: NaN is not a number"),
            (
                "double(caption) > 1.0",
                "double: string parse error: invalid float literal",
            ),
        ],
    );
}

#[test]
fn missing_null_and_nan_do_not_pass() {
    assert_outcomes(
        None,
        &[
            ("clip_b > 0.2", "clip_b is missing"),
            ("!(clip_b > 0.2)", "clip_b is missing"),
            ("clip_b != 0.2", "clip_b is missing"),
            ("clip_b > 0.2 || width > 1", "pass"),
            ("width > 1 || clip_b > 0.2", "pass"),
            (
                "width > 1000 && clip_b > 0.2",
                "width 320, clip_b is missing",
            ),
            ("width > 1000 ? clip_b > 0.2 : aspect > 1.0", "pass"),
            ("broken > 0.2", "broken is NaN"),
            ("!(broken > 0.2)", "broken is NaN"),
            ("broken != 0.2", "broken is NaN"),
            ("broken == broken", "broken is NaN"),
            ("min(broken, 1.0) <= 1.0", "broken is NaN"),
            ("blurry > 0.2", "blurry is NaN"),
            ("nsfw5.sexy < 0.5", "nsfw5.sexy is NaN"),
            ("light > 0.2", "light is null"),
            ("!(light > 0.2)", "light is null"),
            ("0.2 < light", "light is null"),
            ("light + 1.0 > 0.2", "light is null"),
            ("max(light, 0.5) > 0.2", "light is null"),
            ("light == null", "pass"),
            ("light != null && light > 0.2", "light null"),
        ],
    );
}

#[test]
fn metadata_without_the_field() {
    for metadata in [None, Some("{}"), Some(r#"{"licence": "cc0"}"#)] {
        assert_outcomes(
            metadata,
            &[
                ("metadata.license == 'cc0'", "metadata.license is missing"),
                ("metadata.license != 'cc0'", "metadata.license is missing"),
                (
                    "!(metadata.license in ['nc'])",
                    "metadata.license is missing",
                ),
                ("has(metadata.license)", "metadata.license is missing"),
                ("!has(metadata.license)", "pass"),
                (
                    "!has(metadata.license) || metadata.license == 'cc0'",
                    "pass",
                ),
                (
                    "has(metadata.license) ? metadata.license == 'cc0' : width > 1",
                    "pass",
                ),
                (
                    "has(metadata.license) && metadata.license == 'x'",
                    "metadata.license is missing",
                ),
                ("metadata.exif.model == 'x'", "metadata.exif is missing"),
                ("has(metadata.exif.model)", "metadata.exif is missing"),
                ("metadata['a-b'] == 1", "metadata[\"a-b\"] is missing"),
                ("'license' in metadata", &metadata_shown(metadata)),
            ],
        );
    }
}

fn metadata_shown(metadata: Option<&str>) -> String {
    format!("metadata {}", metadata.unwrap_or("{}"))
}

#[test]
fn metadata_that_is_not_an_object() {
    let table = [
        ("null", "metadata is null", "metadata null"),
        (
            "[1, 2, 3]",
            "metadata is list, it has no such field or item",
            "metadata [1, 2, 3]",
        ),
        (
            "\"text\"",
            "metadata is string, it has no such field or item",
            "metadata \"text\"",
        ),
        (
            "3",
            "metadata is int, it has no such field or item",
            "metadata 3",
        ),
        (
            "true",
            "metadata is bool, it has no such field or item",
            "metadata true",
        ),
        ("{\"a\": 3,", INVALID, INVALID),
        (
            "",
            "metadata is not valid JSON: EOF while parsing a value at line 1 column 0",
            "",
        ),
        (
            "{\"a\": NaN}",
            "metadata is not valid JSON: expected value at line 1 column 7",
            "",
        ),
        (
            "{\"b\": 1} x",
            "metadata is not valid JSON: trailing characters at line 1 column 10",
            "",
        ),
        ("{\"a\": \"\u{fffd}\"}", "pass", ""),
    ];
    for (metadata, field, whole) in table {
        let metadata = Some(metadata);
        assert_eq!(
            outcome("metadata.a == '\u{fffd}'", metadata),
            field,
            "{metadata:?}"
        );
        if !whole.is_empty() {
            assert_eq!(outcome("metadata == 'x'", metadata), whole, "{metadata:?}");
        }
    }
    assert_outcomes(
        Some("[1, 2, 3]"),
        &[
            (
                "metadata[1] == 2 && size(metadata) == 3 && 3 in metadata",
                "pass",
            ),
            ("metadata[3] == 2", "metadata[3] is missing"),
            ("metadata.all(x, x > 1)", "metadata [1, 2, 3]"),
        ],
    );
    assert_eq!(outcome("metadata == null", Some("null")), "pass");
}

const INVALID: &str = "metadata is not valid JSON: EOF while parsing a value at line 1 column 8";

#[test]
fn metadata_types() {
    let metadata = r#"{"n": 3, "x": 2.5, "s": "3", "b": true, "z": null, "l": ["a", "b"],
        "o": {"p": {"q": 7}}, "a-b": 1, "c.d": 2, "é": 4, "twice": 1, "twice": 2,
        "esc": "\ud83d\udc08\n", "mixed": [1, "x"], "i64": 9223372036854775807,
        "u64": 18446744073709551615, "big": 123456789012345678901234567890}"#;
    assert_outcomes(
        Some(metadata),
        &[
            (
                "metadata.n == 3 && metadata.n >= 2.5 && metadata.x < 3 && metadata.n < width",
                "pass",
            ),
            (
                "metadata.n * 1.5 == 4.5 && metadata.x + metadata.n == 5.5",
                "pass",
            ),
            (
                "metadata.s == '3' && int(metadata.s) == 3 && double(metadata.s) > 2",
                "pass",
            ),
            ("metadata.b && !(metadata.z != null)", "pass"),
            ("metadata.b", "pass"),
            (
                "'a' in metadata.l && size(metadata.l) == 2 && metadata.l[1] == 'b'",
                "pass",
            ),
            (
                "metadata.l == ['a', 'b'] && ['a', 'b'] == metadata.l",
                "pass",
            ),
            (
                "metadata.o.p.q == 7 && has(metadata.o.p) && metadata.o['p']['q'] > 6",
                "pass",
            ),
            (
                "metadata.o == {'p': {'q': 7}} && {'p': {'q': 7.0}} == metadata.o",
                "pass",
            ),
            (
                "metadata['a-b'] == 1 && metadata['c.d'] == 2 && metadata['é'] == 4",
                "pass",
            ),
            ("metadata.twice == 2", "pass"),
            ("metadata.esc == '🐈\\n' && size(metadata.esc) == 2", "pass"),
            (
                "metadata.i64 == bytes && metadata.u64 > 1.8e19 && metadata.big > 1e29",
                "pass",
            ),
            (
                "type(metadata.n) == int && type(metadata.u64) == double",
                "pass",
            ),
            (
                "metadata.n < 'x'",
                "metadata.n is int, compared with string",
            ),
            (
                "'x' < metadata.n",
                "metadata.n is int, compared with string",
            ),
            ("metadata.s > 2", "metadata.s is string, compared with int"),
            (
                "!(metadata.s > 2)",
                "metadata.s is string, compared with int",
            ),
            ("metadata.s == 3", "metadata.s \"3\""),
            ("metadata.s + 1 > 2", "+ does not take string and int"),
            (
                "metadata.s.contains(3)",
                "contains does not take (string, int)",
            ),
            (
                "metadata.n.contains('3')",
                "contains does not take (int, string)",
            ),
            (
                "metadata.n.matches('3')",
                "matches does not take (int, string)",
            ),
            ("metadata.z > 2", "metadata.z is null"),
            ("metadata.z.y == 2", "metadata.z is null"),
            (
                "metadata.n.y == 2",
                "metadata.n is int, it has no such field or item",
            ),
            (
                "metadata.l.y == 2",
                "metadata.l is list, it has no such field or item",
            ),
            ("metadata.l[2] == 'c'", "metadata.l[2] is missing"),
            ("metadata.o.p.z == 7", "metadata.o.p.z is missing"),
            ("metadata.n", "metadata.n is int, not true or false"),
            ("metadata.z", "metadata.z is null, not true or false"),
            ("size(metadata.l)", "the value is int, not true or false"),
            ("!metadata.s", "metadata.s is string, not true or false"),
            (
                "metadata.s && true",
                "metadata.s is string, not true or false",
            ),
            (
                "true && metadata.s",
                "metadata.s is string, not true or false",
            ),
            (
                "metadata.s ? true : false",
                "metadata.s is string, not true or false",
            ),
            (
                "metadata.n.all(x, x > 1)",
                "metadata.n is int, not a list or map",
            ),
            (
                "metadata.l.all(x, x > 1)",
                "the value is string, compared with int",
            ),
            ("metadata.mixed.exists(x, x == 'x')", "pass"),
            ("metadata.o.exists(k, metadata.o[k].q == 7)", "pass"),
            (
                "metadata.l.exists(x, x.y == 1)",
                "the value is string, it has no such field or item",
            ),
            (
                "metadata.l.all(x, has(x.y))",
                "the value is string, it has no such field or item",
            ),
            (
                "max(metadata.n, metadata.s) == 3",
                "max does not take (int, string)",
            ),
            ("min(metadata.l) == 'a'", "pass"),
            (
                "key.matches(metadata.s)",
                "key \"000001\", metadata.s \"3\"",
            ),
            ("metadata.l[0] == 'b'", "metadata.l[0] \"a\""),
            ("metadata.o == {}", "metadata.o {\"p\": {\"q\": 7}}"),
        ],
    );
}

#[test]
fn documents_of_the_hard_fixture() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let clash = r#"{"key": "other", "url": "x", "aesthetic_score": 99, "nsfw_score": "high"}"#;
    let id = r#"{"id": 123456789012345678901234567890}"#;
    let unicode = r#"{"caption": "猫 \ud83d\udc08", "é": null}"#;
    let too_deep = "metadata is not valid JSON: recursion limit exceeded at line 1 column 128";
    let not_comparable = "metadata.nsfw_score is string, compared with double";
    let table = [
        (r#"{"a":1,"a":2}"#, "metadata.a == 2", "pass"),
        (id, "metadata.id > 1e29", "pass"),
        (
            id,
            "metadata.id == 1",
            "metadata.id 123456789012345680000000000000",
        ),
        (
            clash,
            "metadata.key != key && metadata.aesthetic_score > aesthetic",
            "pass",
        ),
        (clash, "metadata.nsfw_score < 0.5", not_comparable),
        (
            unicode,
            "metadata.caption == '猫 🐈' && metadata['é'] == null",
            "pass",
        ),
        (&deep, "metadata == 3", too_deep),
    ];
    for (metadata, text, expected) in table {
        assert_eq!(
            outcome(text, Some(metadata)),
            expected,
            "{text} on {metadata:.60}"
        );
    }
}

#[test]
fn fields_that_no_rule_reads_have_no_effect() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let metadata = format!(r#"{{"license": "cc0", "x": 1e400, "y": {deep}}}"#);
    let out_of_range = "metadata is not valid JSON: number out of range at line 1 column 29";
    assert_outcomes(
        Some(&metadata),
        &[
            ("metadata.license == 'cc0'", "pass"),
            ("has(metadata.license)", "pass"),
            ("metadata.x > 1", out_of_range),
            ("size(metadata) > 1", out_of_range),
        ],
    );
}

#[test]
fn null_equals_null_alone() {
    let mut row = SampleValues::default();
    row.set("caption", Value::Null);
    for (text, passes) in [
        ("caption == null", true),
        ("caption != 'x'", true),
        ("caption == 'x'", false),
        ("caption in ['x']", false),
        ("!(caption in ['x'])", true),
        ("!caption.contains('x')", false),
        ("caption + 'x' != 'x'", false),
        ("!(caption < 'x')", false),
        (
            "caption != null && caption.size() > 0 || caption == null",
            true,
        ),
    ] {
        let rules = compile(text).expect("the rule compiles");
        assert_eq!(rules.first_failure(&row).is_none(), passes, "{text}");
    }
}

#[test]
fn the_first_failure_is_named() {
    let rules = [
        ("wide", "width > 3"),
        ("bright", "dark > 0.5"),
        ("licensed", "metadata.license == 'cc0'"),
    ];
    let rules = rules.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let rules = RuleSet::compile(&rules, &variables()).expect("the rules compile");
    assert_eq!(
        rules.references(),
        BTreeSet::from(["dark", "metadata", "width"])
    );
    let row = row(None);
    let failure = rules.first_failure(&row).expect("dark is 0.3");
    assert_eq!(
        (failure.rule, failure.detail.as_str()),
        ("bright", "dark 0.3")
    );
}

#[test]
fn references_leave_out_the_variables_of_loops() {
    let text = "[1].exists(width, width > 1) || nsfw5.porn > 0.5 && size(metadata['a']) > height";
    let rules = compile(text).expect("the rule compiles");
    assert_eq!(
        rules.references(),
        BTreeSet::from(["height", "metadata", "nsfw5"])
    );
}

#[test]
fn maps_are_visited_in_the_order_of_their_keys() {
    let metadata = r#"{"e": 1, "d": 1, "c": "x", "b": 1, "a": 1}"#;
    let shown = r#"metadata {"a": 1, "b": 1, "c": "x", "d": 1, "e": 1}"#;
    for _ in 0..20 {
        assert_outcomes(
            Some(metadata),
            &[
                ("metadata.map(k, k) == ['a', 'b', 'c', 'd', 'e']", "pass"),
                ("metadata == {}", shown),
            ],
        );
    }
}
