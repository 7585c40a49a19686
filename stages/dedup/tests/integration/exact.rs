use sluice_dedup::exact::duplicates;
use sluice_dedup::ranking::Candidate;

fn candidate(image_id: &str, score: Option<f32>) -> Candidate<'_> {
    Candidate {
        image_id,
        score,
        pixels: 100,
        texts: 0,
        distance: 0.0,
    }
}

#[test]
fn the_best_of_each_group_stays() {
    let rows = [
        ("aa", candidate("1", Some(4.0))),
        ("bb", candidate("2", None)),
        ("aa", candidate("3", Some(6.0))),
        ("cc", candidate("4", Some(1.0))),
        ("bb", candidate("0", None)),
        ("aa", candidate("5", None)),
    ];
    let expected = [Some(2), Some(4), None, None, None, Some(2)];
    assert_eq!(duplicates(&rows), expected);

    let reversed: Vec<_> = rows.iter().rev().copied().collect();
    let kept: Vec<_> = duplicates(&reversed)
        .into_iter()
        .rev()
        .map(|kept| kept.map(|index| rows.len() - 1 - index))
        .collect();
    assert_eq!(kept, expected, "whatever the order of the rows");
}

#[test]
fn digests_may_be_bytes() {
    let rows = [
        ([7_u8; 32], candidate("a", None)),
        ([8; 32], candidate("b", None)),
        ([7; 32], candidate("c", None)),
    ];
    assert_eq!(duplicates(&rows), [None, None, Some(0)]);
    assert_eq!(duplicates::<&str>(&[]), []);
}
