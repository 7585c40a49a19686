//! The repository's documents, and a parser for the parts of Markdown that they use.

use std::path::{Component, Path, PathBuf};

/// A Markdown file.
pub(crate) struct MarkdownFile {
    /// The path below the repository's root.
    pub path: String,
    pub text: String,
}

/// A fenced code block.
pub(crate) struct CodeBlock {
    pub language: String,
    pub text: String,
}

impl CodeBlock {
    /// Whether it contains command lines, according to its language.
    pub(crate) fn is_shell(&self) -> bool {
        ["", "sh", "shell", "bash", "console"].contains(&self.language.as_str())
    }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in the repository")
        .to_owned()
}

/// Collects the repository's files, except downloaded, built and generated ones.
#[expect(clippy::disallowed_methods, reason = "the documents are on local disk")]
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of the repository").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let made = name.starts_with('.') || name == "target" || path == root().join("demo");
        if made {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    found
}

fn below_root(path: &Path) -> String {
    let below = path.strip_prefix(root()).expect("below the root");
    below.to_string_lossy().into_owned()
}

/// Returns the paths of the repository's files, below its root.
pub(crate) fn files() -> Vec<String> {
    all_files().iter().map(|path| below_root(path)).collect()
}

/// Returns all documents, by path.
#[expect(clippy::disallowed_methods, reason = "the documents are on local disk")]
pub(crate) fn documents() -> Vec<MarkdownFile> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let read = |path: PathBuf| MarkdownFile {
        text: std::fs::read_to_string(&path).expect("a document is text"),
        path: below_root(&path),
    };
    let files = all_files().into_iter();
    files.filter(is_document).map(read).collect()
}

/// Returns the crates without a README, below the root.
pub(crate) fn crates_without_readme() -> Vec<String> {
    let manifests = all_files()
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml"));
    let folders = manifests.filter_map(|path| path.parent().map(Path::to_owned));
    let missing = folders.filter(|folder| !folder.join("README.md").is_file());
    missing.map(|folder| folder.display().to_string()).collect()
}

/// Returns the fenced code blocks of a text.
pub(crate) fn blocks(text: &str) -> Vec<CodeBlock> {
    let mut blocks = Vec::new();
    let mut open: Option<CodeBlock> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(CodeBlock {
                    language,
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    blocks
}

/// Returns a table's cells: the head, then the rows.
pub(crate) fn table(text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let rows = lines.map(cells);
    let is_rule = |row: &Vec<String>| {
        row.iter()
            .all(|cell| cell.chars().all(|c| "-: ".contains(c)))
    };
    rows.enumerate()
        .filter(|(at, row)| *at != 1 || !is_rule(row))
        .map(|(_, row)| row)
        .collect()
}

impl MarkdownFile {
    /// Returns its code blocks.
    pub(crate) fn blocks(&self) -> Vec<CodeBlock> {
        blocks(&self.text)
    }

    /// Returns its text without code blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let outside = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        };
        self.text
            .lines()
            .filter(outside)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Returns the lines that can be wrapped, with their numbers: no tables, no links, no program
    /// output (code blocks in the language `text`).
    pub(crate) fn wrappable(&self) -> Vec<(usize, &str)> {
        let mut is_output = false;
        let mut is_code = false;
        let wraps = |(_, line): &(usize, &str)| {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                is_code = !is_code;
                is_output = is_code && language.trim() == "text";
            }
            let is_table = line.trim_start().starts_with('|');
            let is_link = line.contains("](") || line.contains("://");
            !is_output && !is_table && !is_link
        };
        let lines = self.text.lines().enumerate();
        lines
            .map(|(at, line)| (at + 1, line))
            .filter(wraps)
            .collect()
    }

    /// Returns the text between the heading that begins with these words and the next heading.
    pub(crate) fn section(&self, heading: &str) -> String {
        let mut inside = false;
        let mut section = String::new();
        for line in self.prose().lines() {
            if line.starts_with('#') {
                inside = line
                    .trim_start_matches('#')
                    .trim_start()
                    .starts_with(heading);
            } else if inside {
                section.push_str(line);
                section.push('\n');
            }
        }
        assert!(!section.is_empty(), "{}: no section {heading}", self.path);
        section
    }

    /// Returns the first table of a section: its head and its rows.
    pub(crate) fn table(&self, heading: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let mut rows = table(&self.section(heading)).into_iter();
        let head = rows
            .next()
            .unwrap_or_else(|| panic!("{}: no table in {heading}", self.path));
        (head, rows.collect())
    }

    /// Returns the targets of its links that are not on the web.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        let inner = targets
            .map(|(target, _)| target)
            .filter(|target| !target.contains("://"));
        inner.map(str::to_owned).collect()
    }

    /// Returns the anchors of its headings, as code hosts generate them.
    fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        let anchor = |heading: &str| -> String {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(anchor).collect()
    }
}

/// Whether a link's file exists and contains the linked heading.
pub(crate) fn leads_somewhere(link: &str, from: &MarkdownFile, all: &[MarkdownFile]) -> bool {
    let (path, anchor) = link
        .split_once('#')
        .map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = match path {
        "" => PathBuf::from(&from.path),
        path => normal(
            &Path::new(&from.path)
                .parent()
                .unwrap_or(Path::new(""))
                .join(path),
        ),
    };
    if !root().join(&target).exists() {
        return false;
    }
    let Some(anchor) = anchor else { return true };
    let document = all
        .iter()
        .find(|document| Path::new(&document.path) == target);
    document.is_some_and(|document| document.anchors().iter().any(|found| found == anchor))
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
