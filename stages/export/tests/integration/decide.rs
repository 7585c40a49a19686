//! `decide`: one decision for every sample, with its step, reason and detail.

use sluice_manifest::rows::{DecisionRow, SampleRow};
use sluice_manifest::{Reason, ReasonKind};

use crate::support::{Run, exit, samples, score, words};

fn decisions(run: &Run) -> Vec<DecisionRow> {
    let paths = run.store("run").list("export/decisions").unwrap();
    let rows = paths.iter().map(|object| run.rows(&object.path));
    rows.flatten().collect()
}

#[test]
fn without_deciding_steps_only_what_read_rejected_goes() {
    let run = Run::new("decide-none");
    run.shard("a.tar", &samples(0..10));
    run.shard("b.tar", &samples(10..24));
    run.read(1);
    assert_eq!(run.decide(None).unwrap(), (2, 0));
    let (rows, read) = (decisions(&run), run.samples());
    assert_eq!(rows.len(), 24);
    for (row, sample) in rows.iter().zip(&read) {
        assert_eq!(row.image_id, sample.image_id);
        assert_eq!(row.reason, sample.reason);
        assert_eq!(row.keep, sample.reason.is_none());
        let step = row.step.as_ref().map(|step| step.as_str());
        assert_eq!(step, sample.reason.as_ref().map(|_| "read"));
        let bytes: u64 = sample.members.iter().map(|member| member.size).sum();
        assert_eq!(row.bytes, bytes);
    }
    let kept = rows[10..].iter().filter(|row| row.keep);
    let kept: Vec<u64> = kept.map(|row| row.bytes).collect();
    let receipt = run.receipt("export/receipts/part-00001.json");
    assert_eq!(receipt.counts.kept, kept.len() as u64);
    assert_eq!(receipt.sums.kept_bytes, kept.iter().sum::<u64>());
    assert_eq!(receipt.sums.largest_kept, *kept.iter().max().unwrap());
    assert_eq!(receipt.sums.last_kept, *kept.last().unwrap());
}

#[test]
fn each_step_of_the_chain_gives_its_reason() {
    let run = Run::new("decide-chain");
    run.shard("a.tar", &samples(0..60));
    run.shard("b.tar", &samples(60..80));
    run.read(1);
    run.score("clear", &["score"]);
    run.score("aesthetic", &["score"]);
    run.filter("usable", None, "clear", 0.2);
    run.filter("filter", Some("usable"), "aesthetic", 0.3);
    let read = run.samples();
    let scored = |scorer: &str, sample: &SampleRow| score(sample, scorer, "score");
    let stays = |sample: &&SampleRow| {
        let passes =
            |scorer: &str, least: f32| scored(scorer, sample).is_some_and(|score| score >= least);
        sample.reason.is_none() && passes("clear", 0.2) && passes("aesthetic", 0.3)
    };
    let twin = &read.iter().filter(stays).nth(3).unwrap().image_id;
    run.dedup("dedup", Some("filter"), "aesthetic", &[twin]);
    assert_eq!(run.decide(Some("dedup")).unwrap(), (2, 0));
    let mut steps = std::collections::BTreeSet::new();
    for (row, sample) in decisions(&run).iter().zip(&read) {
        let below = |step, scorer: &str, least: f32| match (sample.reason.is_none())
            .then(|| scored(scorer, sample))
        {
            Some(None) => Some((step, Reason::about(ReasonKind::NotScored, scorer))),
            Some(Some(score)) if score < least => {
                Some((step, Reason::about(ReasonKind::BelowMin, scorer)))
            }
            _ => None,
        };
        let dropped = sample.reason.clone().map(|reason| ("read", reason));
        let dropped = dropped
            .or_else(|| below("usable", "clear", 0.2))
            .or_else(|| below("filter", "aesthetic", 0.3))
            .or_else(|| {
                let reason = Reason::from(ReasonKind::ExactDuplicate);
                (sample.image_id == *twin).then_some(("dedup", reason))
            });
        let found = row.step.as_ref().map(|step| step.as_str());
        assert_eq!(found.zip(row.reason.clone()), dropped, "{}", row.image_id);
        assert_eq!(row.keep, dropped.is_none());
        assert_eq!(
            row.detail.is_some(),
            found.is_some_and(|step| step != "read")
        );
        steps.extend(found.map(str::to_owned));
    }
    assert_eq!(
        steps.into_iter().collect::<Vec<_>>(),
        ["dedup", "filter", "read", "usable"]
    );
    assert_eq!(run.decide(Some("dedup")).unwrap(), (2, 2), "up to date");
    assert_eq!(run.decide(Some("usable")).unwrap(), (2, 0), "fewer steps");
    let receipt = run.receipt("export/receipts/part-00000.json");
    assert_eq!(receipt.survivors_of.unwrap().as_str(), "usable");
}

#[test]
fn a_step_that_was_not_run_is_named() {
    let run = Run::new("decide-missing");
    run.shard("a.tar", &samples(0..3));
    run.read(1);
    let text = words(run.decide(Some("nsfw")));
    assert!(text.contains("run the step nsfw first"), "{text}");
    assert_eq!(exit(run.decide(Some("nsfw"))), 3);
    run.score("nsfw", &["score"]);
    let text = words(run.decide(Some("nsfw")));
    assert!(text.contains("no receipt of a deciding step"), "{text}");
}
