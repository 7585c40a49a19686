//! Rules of any length and form end with a short outcome.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn details_are_short() {
    let caption = "é".repeat(200_000);
    let metadata = format!("[{}1]", "[[1, 2], {\"a\": \"b\"}], ".repeat(1_000));
    let mut row = SampleValues::default();
    row.set("caption", caption.as_str());
    row.set("metadata", Value::json(Some(&metadata)));
    let rules = compile("caption == '' || metadata == 1").expect("the rule compiles");
    let detail = rules.first_failure(&row).expect("the rule fails").detail;
    assert!(detail.starts_with("caption \"ééé"), "{detail}");
    assert!(
        detail.contains("é…, metadata [[[1, 2], {\"a\": \"b\"}], [["),
        "{detail}"
    );
    assert_eq!(
        detail.chars().count(),
        "caption ".len() + 61 + ", metadata ".len() + 61
    );
}

#[test]
fn long_and_deep_expressions_are_refused() {
    let too_deep = "the expression is nested too deep";
    let table = [
        ("(".repeat(4_000) + "true" + &")".repeat(4_000), too_deep),
        ("[".repeat(97) + &"]".repeat(97), too_deep),
        ("1 + ".repeat(2_000) + "1 > 0", too_deep),
        (format!("metadata{} == 1", ".a".repeat(4_000)), too_deep),
        ("true ? false : ".repeat(600) + "true", too_deep),
        (
            "[1].all(x, ".repeat(60) + "true" + &")".repeat(60),
            too_deep,
        ),
        ("(".repeat(9_999), too_deep),
        (
            "a".repeat(10_001),
            "the expression is longer than 10000 characters",
        ),
    ];
    for (text, expected) in table {
        let error = compile(&text)
            .err()
            .unwrap_or_else(|| panic!("{text:.60} compiles"));
        let expected = format!("rule rule: {expected} in `");
        assert!(error.message.starts_with(&expected), "{}", error.message);
    }
}

#[test]
fn long_expressions_within_the_limits_are_evaluated() {
    for text in [
        "!".repeat(9_000) + "true",
        "1 + ".repeat(95) + "1 > 0",
        vec!["width > 1"; 700].join(" && "),
        format!("width in [{}, 320]", vec!["1"; 3_000].join(", ")),
        format!("!caption.matches('{}')", vec!["watermark"; 900].join("|")),
    ] {
        assert_eq!(outcome(&text, None), "pass", "{text:.60}");
    }
}

#[test]
fn nested_loops_end() {
    let list = format!("[{}]", vec!["1"; 200].join(","));
    let nested = "metadata.all(a, metadata.all(b, metadata.all(c, a + b + c == 3)))";
    let expected = "the rule visits more than 10000 list items";
    assert_eq!(outcome(nested, Some(&list)), expected);
    assert_eq!(outcome(nested, Some("[1, 1, 1]")), "pass");
    let long = format!("[{}]", vec!["1"; 10_001].join(","));
    assert_eq!(outcome("metadata.all(a, a == 1)", Some(&long)), expected);
}

#[test]
fn rule_sets_are_shared_between_threads() {
    let rules = compile("caption.matches('red') && metadata.a == 1").expect("the rule compiles");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(rules.first_failure(&row(Some(r#"{"a": 1}"#))), None));
        }
    });
}

/// Returns expressions of all forms, most with an error.
fn expressions() -> impl Strategy<Value = String> {
    let words = |text: &str| {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        select(words)
    };
    let leaf = prop_oneof![
        words("width aspect caption light broken clip_b nsfw5.porn nsfw5 x true"),
        words("metadata metadata.a metadata['b'] metadata.l metadata.o.p metadata.o"),
        words("0 -1 9223372036854775807 2u 1.5 1e308 '' '3' b'x' null []"),
    ];
    let operators = words("+ - * / % < >= == != in && ||");
    let functions = words("int uint double string size min max bytes type bool dyn ! -");
    let methods = words("contains startsWith endsWith matches");
    let loops = words("all exists exists_one map filter");
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            (pair.clone(), operators.clone()).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            (inner.clone(), functions.clone()).prop_map(|(a, name)| format!("{name}({a})")),
            (pair.clone(), methods.clone()).prop_map(|((a, b), name)| format!("{a}.{name}({b})")),
            (pair.clone(), loops.clone()).prop_map(|((a, b), name)| format!("{a}.{name}(x, {b})")),
            pair.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
            pair.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            pair.clone().prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            (pair, inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
            inner.prop_map(|a| format!("(has(metadata.o.q) && {a} == 1)")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No expression and no row makes a rule panic, and a rule gives the same outcome twice.
    #[test]
    fn every_rule_has_an_outcome(expression in expressions(), document in select(DOCUMENTS)) {
        if let Ok(rules) = compile(&expression) {
            let failure = rules.first_failure(&row(document));
            prop_assert_eq!(&failure, &rules.first_failure(&row(document)));
            if let Some(Failure { detail, .. }) = failure {
                prop_assert!(detail.chars().count() <= DETAIL_CHARS + 1);
                prop_assert!(!detail.contains(char::is_control));
            }
        }
    }
}

const DOCUMENTS: &[Option<&str>] = &[
    None,
    Some("null"),
    Some("[0, 1.5, \"x\"]"),
    Some(r#"{"a": 1, "b": "x", "l": [1, "x", null, []], "o": {"p": true, "x": {"y": 1}}}"#),
    Some(
        r#"{"a": -9223372036854775808, "b": "3", "l": [true, false], "o": {"p": "(", "q": 1e308}}"#,
    ),
    Some("{"),
];
