use clap::Parser;

use super::*;
use crate::{Args as Sluice, SluiceCommand};

fn args(line: &str) -> RunArgs {
    let args = Sluice::try_parse_from(line.split(' ')).unwrap();
    match args.command {
        SluiceCommand::Run(args) => *args,
        _ => panic!("{line}"),
    }
}

fn place(line: &str) -> Result<String> {
    let args = args(line);
    let (pipeline, given) = args.load(&Storage::default())?;
    Ok(args.place(&pipeline.values(&given)?)?)
}

#[test]
fn the_run_is_beside_the_output() {
    let run = place("sluice run --input /data --output /out/x/").unwrap();
    assert_eq!(run, "/out/x.run");
    let run = place("sluice run --input /data --output /out/x --run /runs/x").unwrap();
    assert_eq!(run, "/runs/x");
}

#[test]
fn places_do_not_get_in_each_others_way() {
    for line in [
        "sluice run --input /data --output /data/out",
        "sluice run --input /data --output /data",
        "sluice run --input /data --output /out --run /out/run",
        "sluice run --input /data --output /run/out --run /run",
        "sluice run --input /data --output /out --run /data/run",
        "sluice run --input /out/a.tar --output /out",
        "sluice run --input /data",
        "sluice run --output /out",
        "sluice run --input /data --output file:///data/./out",
        "sluice run --input /data/ --output /x/../data",
        "sluice run --input s3://b/in --output S3://b//in/out",
        "sluice run --input s3://b/in --output s3://b/out --run s3://b/out/run",
    ] {
        assert!(place(line).is_err(), "{line}");
    }
}

/// Returns the error of a command line. Without `typed`, its values come from the environment.
fn refused(line: &str, typed: bool) -> String {
    let line = format!("sluice run --input memory://in --output memory://out {line}");
    let mut args = args(&line);
    if !typed {
        args.parameters.from_line.clear();
    }
    let storage = Storage::default();
    let loaded = args.load(&storage);
    let checked = loaded
        .and_then(|(pipeline, given)| args.check(&storage, &pipeline, &given, "memory://run"));
    format!("{:#}", checked.unwrap_err())
}

#[test]
fn errors_name_the_flag_or_the_variable() {
    for (line, flag, variable) in [
        (
            "--max-nsfw abc",
            "--max-nsfw: step filter: ",
            "SLUICE_MAX_NSFW",
        ),
        (
            "--min-aesthetic nan",
            "--min-aesthetic: step filter: ",
            "SLUICE_MIN_AESTHETIC",
        ),
        ("--eps 3", "'--eps <EPS>'", "SLUICE_EPS"),
        ("--keep foo", "best, hard, easy, random", "SLUICE_KEEP"),
        ("--min-side -1", "parameter min-side: ", "SLUICE_MIN_SIDE"),
        ("--eps 0.1 --ranges 0", "'--ranges <N>'", "SLUICE_RANGES"),
    ] {
        let (typed, set) = (refused(line, true), refused(line, false));
        assert!(typed.contains(flag), "{line}: {typed}");
        let start = format!("{variable} of the environment: ");
        assert!(set.starts_with(&start), "{line}: {set}");
    }
}

#[test]
fn a_preset_is_a_set_of_defaults() {
    let all = lines("sluice run --input data --output out --preset small --eps 0.2");
    for word in [
        "efficientnet-lite0",
        "technical-quality",
        "opennsfw",
        "--eps=0.2",
    ] {
        assert!(all.contains(word), "{word}");
    }
}

/// Returns the command lines of the default pipeline.
fn lines(line: &str) -> String {
    let args = args(line);
    let (pipeline, given) = args.load(&Storage::default()).unwrap();
    let mut values = pipeline.values(&given).unwrap();
    if !line.contains("--models") {
        values.remove("models"); // may be set in the environment
    }
    let lines = pipeline
        .nodes
        .iter()
        .map(|node| shell(&node.command("runs/a", &values)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn options_that_were_not_given_are_left_out() {
    insta::assert_snapshot!(lines("sluice run --input data --output out"), @r"
    sluice-partition --run=runs/a --input=data
    sluice-read --run=runs/a
    sluice-filter --run=runs/a --step=usable '--rule=large=min(width, height) >= 1' '--rule=shape=aspect <= 1000000'
    sluice-dedup exact --run=runs/a --step=exact --survivors-of=usable --methods=exact --skip-unusable
    sluice-embed --run=runs/a --survivors-of=exact --model=clip-vit-l14
    sluice-aesthetic --run=runs/a --survivors-of=exact --embeddings=embed --model=laion-aesthetic-v2
    sluice-nsfw --run=runs/a --survivors-of=exact --embeddings=embed --model=laion-nsfw
    sluice-filter --run=runs/a --survivors-of=exact --min=aesthetic= --max=nsfw=
    sluice-dedup pairs --run=runs/a --survivors-of=filter --methods=perceptual,semantic --skip-unusable
    sluice-dedup perceptual --run=runs/a --survivors-of=filter --methods=perceptual,semantic --rank-by=aesthetic --skip-unusable
    sluice-dedup fit --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic
    sluice-dedup assign --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --rank-by=aesthetic
    sluice-dedup match --run=runs/a --survivors-of=filter --methods=perceptual,semantic --skip-unusable
    sluice-export decide --run=runs/a --survivors-of=dedup
    sluice-export plan --run=runs/a --survivors-of=dedup --scores=aesthetic,nsfw --output=out
    sluice-export write --run=runs/a --survivors-of=dedup
    sluice-export index --run=runs/a --survivors-of=dedup
    sluice-report --run=runs/a
    ");
}

#[test]
fn options_reach_their_step() {
    let all = "sluice run --input a/*.tar b --output out --embedder e --aesthetic s --nsfw n \
        --min-aesthetic -1.5 --max-nsfw 0.5 --eps 0.15 --keep hard --clusters 7 --max-distance 3 \
        --min-side 200 --max-aspect 3 --bytes-per-shard 1000000 --shards-per-partition 2 \
        --embeddings --models /models";
    insta::assert_snapshot!(lines(all), @r"
    sluice-partition --run=runs/a '--input=a/*.tar' --input=b --shards-per-partition=2
    sluice-read --run=runs/a
    sluice-filter --run=runs/a --step=usable '--rule=large=min(width, height) >= 200' '--rule=shape=aspect <= 3'
    sluice-dedup exact --run=runs/a --step=exact --survivors-of=usable --methods=exact --skip-unusable
    sluice-embed --run=runs/a --survivors-of=exact --models=/models --model=e
    sluice-aesthetic --run=runs/a --survivors-of=exact --embeddings=embed --models=/models --model=s
    sluice-nsfw --run=runs/a --survivors-of=exact --embeddings=embed --models=/models --model=n
    sluice-filter --run=runs/a --survivors-of=exact --min=aesthetic=-1.5 --max=nsfw=0.5
    sluice-dedup pairs --run=runs/a --survivors-of=filter --methods=perceptual,semantic --skip-unusable --max-distance=3
    sluice-dedup perceptual --run=runs/a --survivors-of=filter --methods=perceptual,semantic --rank-by=aesthetic --skip-unusable --max-distance=3
    sluice-dedup fit --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --clusters=7
    sluice-dedup assign --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --rank-by=aesthetic
    sluice-dedup match --run=runs/a --survivors-of=filter --methods=perceptual,semantic --skip-unusable --eps=0.15 --keep=hard
    sluice-export decide --run=runs/a --survivors-of=dedup
    sluice-export plan --run=runs/a --survivors-of=dedup --scores=aesthetic,nsfw --output=out --bytes-per-shard=1000000 --embeddings=true
    sluice-export write --run=runs/a --survivors-of=dedup
    sluice-export index --run=runs/a --survivors-of=dedup
    sluice-report --run=runs/a
    ");
}
