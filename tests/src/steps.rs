//! The steps' command lines, for tests that run them one after the other.

/// The steps' command lines, without the run. Words in capitals are placeholders. The three methods
/// of duplicates are separate steps, so that each compares all images.
const STEPS: [&str; 16] = [
    "partition --input INPUT --shards-per-partition 1",
    "read --jobs 1",
    "embed --models MODELS --model efficientnet-lite0",
    "aesthetic --model technical-quality",
    "nsfw --models MODELS --model opennsfw",
    "filter --min aesthetic=0 --max nsfw=1 --rule large=width>=1 --jobs 1",
    "dedup exact --step exact --methods exact --survivors-of filter --ranges RANGES --jobs 1",
    "dedup perceptual --step near --methods perceptual --survivors-of filter --jobs 1",
    "dedup fit --methods semantic --survivors-of filter --clusters 40 --sample 100 --jobs 1",
    "dedup assign --methods semantic --survivors-of filter --rank-by aesthetic --jobs 1",
    "dedup match --methods semantic --survivors-of filter --eps 0.15 --groups GROUPS --jobs 1",
    "export decide --survivors-of dedup --jobs 1",
    "export plan --output OUTPUT --images-per-shard IMAGES --jobs 1",
    "export write --jobs 1",
    "export index --jobs 1",
    "report --jobs 1",
];

/// The command line of one step, with its name.
#[derive(Debug, Clone)]
pub struct StepCommand {
    /// The program and its subcommand.
    pub name: String,
    /// All words, the program's name first.
    pub words: Vec<String>,
}

/// Returns the command lines of all steps, one unit at a time, with a filter that drops no sample.
/// `values` are the values of the placeholders.
pub fn step_commands(run: &str, values: &[(&str, &str)]) -> Vec<StepCommand> {
    let command = |line: &str| {
        let words = line.split(' ').map(|word| {
            let known = values.iter().find(|(name, _)| *name == word);
            known.map_or(word, |(_, value)| value).to_owned()
        });
        let mut words: Vec<String> = words.collect();
        words[0].insert_str(0, "sluice-");
        let subcommand = words.get(1).filter(|word| !word.starts_with('-'));
        let name = subcommand.map_or(words[0].clone(), |sub| format!("{} {sub}", words[0]));
        words.extend(["--run".to_owned(), run.to_owned()]);
        StepCommand { name, words }
    };
    STEPS.iter().map(|line| command(line)).collect()
}
