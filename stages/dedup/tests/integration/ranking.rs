use std::cmp::Ordering;

use proptest::prelude::*;
use sluice_dedup::ranking::{Candidate, KeepRule, best_first, rank};

fn candidate(image_id: &str, score: Option<f32>, pixels: u64, distance: f32) -> Candidate<'_> {
    Candidate {
        image_id,
        score,
        pixels,
        texts: 0,
        distance,
    }
}

fn ids<'a>(candidates: &[Candidate<'a>], order: &[usize]) -> Vec<&'a str> {
    order.iter().map(|&i| candidates[i].image_id).collect()
}

#[test]
fn best_is_score_then_pixels_then_id() {
    let candidates = [
        candidate("nan", Some(f32::NAN), 999, 0.0),
        candidate("none", None, 1000, 0.0),
        candidate("low", Some(-1.0), 9, 0.0),
        candidate("b", Some(5.0), 50, 0.0),
        candidate("a", Some(5.0), 50, 0.0),
        candidate("large", Some(5.0), 51, 0.0),
        candidate("zero", Some(0.0), 1, 0.0),
        candidate("minus-zero", Some(-0.0), 2, 0.0),
    ];
    let order = rank(&candidates, KeepRule::Best, 0, 0);
    let expected = [
        "large",
        "a",
        "b",
        "minus-zero",
        "zero",
        "low",
        "none",
        "nan",
    ];
    assert_eq!(ids(&candidates, &order), expected);
}

#[test]
fn an_image_with_a_caption_comes_before_an_equal_one_without() {
    let with = |image_id, texts| Candidate {
        texts,
        ..candidate(image_id, None, 50, 0.0)
    };
    let candidates = [with("a", 0), with("b", 1), with("c", 3), with("d", 2)];
    let order = rank(&candidates, KeepRule::Best, 0, 0);
    assert_eq!(ids(&candidates, &order), ["c", "d", "b", "a"]);
}

#[test]
fn hard_and_easy_break_ties_by_id_in_their_own_direction() {
    let candidates = [
        candidate("b", None, 1, 0.5),
        candidate("c", None, 1, 0.1),
        candidate("a", None, 1, 0.5),
    ];
    let easy = rank(&candidates, KeepRule::Easy, 0, 0);
    let hard = rank(&candidates, KeepRule::Hard, 0, 0);
    assert_eq!(ids(&candidates, &easy), ["c", "a", "b"]);
    assert_eq!(ids(&candidates, &hard), ["b", "a", "c"]);
}

#[test]
fn random_depends_on_seed_and_cluster() {
    let names: Vec<String> = (0..50).map(|i| format!("image-{i}")).collect();
    let candidates: Vec<_> = names.iter().map(|id| candidate(id, None, 1, 0.0)).collect();
    let order = rank(&candidates, KeepRule::Random, 1, 1);
    assert_eq!(order, rank(&candidates, KeepRule::Random, 1, 1));
    assert_ne!(order, rank(&candidates, KeepRule::Random, 2, 1));
    assert_ne!(order, rank(&candidates, KeepRule::Random, 1, 2));
}

#[test]
fn names_on_the_command_line_and_in_files_are_the_same() {
    use clap::ValueEnum;
    for keep in KeepRule::value_variants() {
        let name = keep.to_possible_value().expect("no hidden value");
        let json = serde_json::to_string(keep).expect("a string");
        assert_eq!(json, format!("\"{}\"", name.get_name()));
    }
}

type Row = (Option<f32>, u64, f32);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let score = prop_oneof![
        Just(None),
        Just(Some(f32::NAN)),
        (0..4_i8).prop_map(|s| Some(f32::from(s)))
    ];
    let distance = prop_oneof![Just(f32::NAN), (0..4_i8).prop_map(f32::from)];
    prop::collection::vec((score, 0..3_u64, distance), 0..30)
}

proptest! {
    #[test]
    fn the_order_of_the_input_does_not_matter(rows in rows(), keep in 0..4_usize, turn in 0..30_usize) {
        let keep = [KeepRule::Best, KeepRule::Hard, KeepRule::Easy, KeepRule::Random][keep];
        let names: Vec<String> = (0..rows.len()).map(|i| format!("{i}")).collect();
        let candidates: Vec<_> = names
            .iter()
            .zip(&rows)
            .map(|(id, &(score, pixels, distance))| candidate(id, score, pixels, distance))
            .collect();
        let mut turned = candidates.clone();
        turned.rotate_left(turn.min(rows.len()));
        let order = ids(&candidates, &rank(&candidates, keep, 3, 4));
        prop_assert_eq!(&order, &ids(&turned, &rank(&turned, keep, 3, 4)));
        if keep == KeepRule::Best {
            for a in &candidates {
                for b in &candidates {
                    prop_assert_eq!(best_first(a, b), best_first(b, a).reverse());
                    let equal = best_first(a, b) == Ordering::Equal;
                    prop_assert_eq!(equal, a.image_id == b.image_id);
                }
            }
        }
    }
}
