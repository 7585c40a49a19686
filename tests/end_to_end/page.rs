//! The report's page in a browser: no errors, the expected pictures, thresholds whose numbers equal
//! those of a run, blur, keyboard, accessibility.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use sluice_manifest::rows::{DecisionRow, DuplicateRow};
use sluice_manifest::{StepName, UnitKind};
use sluice_tests::{Browser, Run, demo_input, models, run, sluice};

use crate::support::word;

/// The number of random pictures of kept images, of dropped images, and of each reason.
const RANDOM: usize = 24;
const OF_REASON: usize = 12;
/// The number of pictures on each side of a threshold.
const STRIP: usize = 6;
/// The number of equidistant slider positions that are tested.
const PLACES: u64 = 5;

/// The pictures below a title of the page.
#[derive(Debug, Deserialize)]
struct ShownPictures {
    title: String,
    ids: Vec<String>,
}

/// A threshold with a slider.
#[derive(Debug, Clone, Deserialize)]
struct ThresholdSlider {
    score: String,
    flag: String,
    now: f32,
    came: u64,
    kept: u64,
}

impl ThresholdSlider {
    fn flag_at(&self, threshold: f32) -> String {
        format!("--{} {}={threshold}", self.flag, self.score)
    }
}

/// A page, and its run.
struct Page<'r> {
    browser: Browser,
    run: &'r Run,
}

/// Writes the report of a run and checks it. Runs the filter with other thresholds. `steps` are the
/// steps that removed duplicates.
pub(crate) fn check(run: &Run, steps: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    sluice_tests::run(&["sluice-report", "--run", &run.uri]).unwrap();
    let html = run.store.get("report/index.html").unwrap();
    assert!(html.len() <= 5_000_000, "{} bytes", html.len());
    let file = folder.path().join("page.html");
    std::fs::write(&file, html).unwrap();
    let Some(browser) = Browser::open(&file).unwrap() else {
        return;
    };
    let mut page = Page { browser, run };
    page.check_galleries();
    page.check_duplicates(steps);
    page.check_accessibility();
    page.check_keyboard();
    page.check_blur();
    page.check_thresholds();
    let errors = &page.browser.errors;
    assert!(errors.is_empty(), "{errors:?}");
}

impl Page<'_> {
    fn value(&mut self, expression: &str) -> Value {
        self.browser.value(expression).unwrap()
    }

    fn parsed<T: for<'d> Deserialize<'d>>(&mut self, expression: &str) -> T {
        serde_json::from_value(self.value(expression)).unwrap()
    }

    fn shown(&mut self) -> Vec<ShownPictures> {
        self.parsed(
            "[...document.querySelectorAll('#pictures h4')].map(title => { \
               let next = title.nextElementSibling; \
               while (next && !next.matches('.pics, .pairs, h4')) next = next.nextElementSibling; \
               const pics = next && !next.matches('h4') ? [...next.querySelectorAll('.pic')] : []; \
               return {title: title.textContent, ids: pics.map(pic => pic.dataset.id)}; })",
        )
    }

    /// Random samples and the pictures of each reason match the decisions.
    fn check_galleries(&mut self) {
        let rows: Vec<DecisionRow> = self.run.rows("export/decisions").unwrap();
        let mut by_title: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in &rows {
            let mut titles = vec![if row.keep { "Kept" } else { "Dropped" }.to_owned()];
            if let (Some(step), Some(reason)) = (&row.step, &row.reason) {
                titles.push(format!("{step}: {reason}"));
            }
            for title in titles {
                by_title
                    .entry(title)
                    .or_default()
                    .insert(row.image_id.to_string());
            }
        }
        let mut checked = 0;
        for shown in self.shown() {
            let Some(expected) = by_title.get(&shown.title) else {
                continue;
            };
            let most = match shown.title.as_str() {
                "Kept" | "Dropped" => RANDOM,
                _ => OF_REASON,
            };
            assert_eq!(shown.ids.len(), expected.len().min(most), "{}", shown.title);
            let wrong = shown.ids.iter().find(|id| !expected.contains(*id));
            assert_eq!(wrong, None, "{}", shown.title);
            checked += 1;
        }
        assert!(checked >= 2 || rows.is_empty());
    }

    /// Duplicates are next to the images that they duplicate, and the largest groups come first. An
    /// image that several independent steps found counts for each step.
    fn check_duplicates(&mut self, steps: &[&str]) {
        let mut originals: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut pairs = BTreeSet::new();
        for step in steps {
            for row in self
                .run
                .rows::<DuplicateRow>(&format!("{step}/duplicates"))
                .unwrap()
            {
                let (gone, other) = (row.image_id.to_string(), row.duplicate_of.to_string());
                originals
                    .entry(other.clone())
                    .or_default()
                    .push(gone.clone());
                pairs.insert((gone, other));
            }
        }
        let shown: Vec<(String, String)> = self.parsed(
            "[...document.querySelectorAll('.pair')].map(pair => \
             [...pair.querySelectorAll('.pic')].map(pic => pic.dataset.id))",
        );
        assert_eq!(shown.is_empty(), pairs.is_empty());
        for pair in shown {
            assert!(pairs.contains(&pair), "{pair:?}");
        }
        let mut sizes: Vec<usize> = originals.values().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let groups = self.shown().into_iter().filter_map(|shown| {
            let (of, count) = shown.title.split_once(": ")?;
            count.ends_with("dropped because of it").then_some(())?;
            Some((of.to_owned(), count.to_owned(), shown.ids))
        });
        for ((of, count, ids), size) in groups.zip(sizes) {
            let members = &originals[&of];
            let noun = if size == 1 { "image" } else { "images" };
            assert_eq!(count, format!("{size} {noun} dropped because of it"));
            assert_eq!((members.len(), &ids[0]), (size, &of));
            assert!(
                ids[1..].iter().all(|id| members.contains(id)),
                "{of}: {ids:?}"
            );
        }
    }

    /// Checks accessibility in light and in dark colours.
    fn check_accessibility(&mut self) {
        for is_dark in [false, true] {
            self.browser.dark(is_dark).unwrap();
            let found = self.browser.not_accessible().unwrap();
            assert_eq!(found.unwrap_or_default(), [""; 0], "dark: {is_dark}");
        }
    }

    /// The Tab key reaches every interactive element.
    fn check_keyboard(&mut self) {
        let operable = "[...document.querySelectorAll('a, input, button, summary, [tabindex]')]\
            .filter(element => element.checkVisibility()).length";
        let operable = self.value(operable).as_u64().unwrap();
        self.value(
            "window.reached = new Set(); \
             document.addEventListener('focusin', event => reached.add(event.target)); 0",
        );
        for _ in 0..=operable {
            self.browser.press("Tab", 9).unwrap();
        }
        assert_eq!(self.value("reached.size"), operable);
    }

    /// A picture with a score at or above the threshold is blurred until it is opened.
    fn check_blur(&mut self) {
        let Some(control) = self.control("nsfw") else {
            return;
        };
        let scores: BTreeMap<String, f32> = self.run.scores("nsfw").unwrap().into_iter().collect();
        let clear: BTreeSet<String> = self
            .parsed("[...document.querySelectorAll('.pic:not(.nsfw)')].map(pic => pic.dataset.id)");
        let above = |id: &&String| scores.get(*id).is_some_and(|score| *score >= control.now);
        assert_eq!(clear.iter().find(above), None);
        if self.value("document.querySelectorAll('.pic.nsfw svg').length") == 0 {
            return;
        }
        let blur = "getComputedStyle(document.querySelector('.pic.nsfw svg')).filter";
        assert!(self.value(blur).as_str().unwrap().starts_with("blur("));
        self.value("document.querySelector('.pic.nsfw summary').click()");
        assert_eq!(self.value(blur), "none");
    }

    fn controls(&mut self) -> Vec<ThresholdSlider> {
        self.parsed("JSON.parse(document.getElementById('controls').textContent)")
    }

    fn control(&mut self, score: &str) -> Option<ThresholdSlider> {
        self.controls()
            .into_iter()
            .find(|control| control.score == score)
    }

    /// The numbers at each slider position equal those of the filter's program.
    fn check_thresholds(&mut self) {
        let controls = self.controls();
        let article = |place: usize| format!("document.querySelectorAll('.control')[{place}]");
        for (place, control) in controls.iter().enumerate() {
            self.check_strip(&article(place), control);
        }
        for (place, control) in controls.iter().enumerate() {
            let article = article(place);
            let others = controls
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != place);
            let others: Vec<String> = others.map(|(_, other)| other.flag_at(other.now)).collect();
            for step in 0..PLACES {
                self.value(&format!(
                    "{{ const slider = {article}.querySelector('input[type=range]'); \
                     slider.value = Math.floor(slider.max * {step} / {}); \
                     slider.dispatchEvent(new Event('input')); }}",
                    PLACES - 1
                ));
                let said: String = self.parsed(&format!("{article}.querySelector('output').value"));
                let flag: String =
                    self.parsed(&format!("{article}.querySelector('.flag').textContent"));
                let (came, kept) = refiltered(
                    self.run,
                    &[&others[..], std::slice::from_ref(&flag)].concat(),
                );
                let numbers = format!("keeps {kept} of {came} (");
                assert!(
                    said.starts_with(&numbers),
                    "{flag}: {said:?}, a run {numbers:?}"
                );
                assert_eq!(came, control.came);
            }
            self.value(&format!("{article}.querySelector('button').click()"));
            self.check_arrow(&article);
        }
    }

    /// The pictures next to the threshold have their scores, and are the nearest kept pictures.
    fn check_strip(&mut self, article: &str, control: &ThresholdSlider) {
        let shown: Vec<(String, f32)> = self.parsed(&format!(
            "[...{article}.querySelectorAll('.strip .cell:not([hidden]) .pic')]\
             .map(pic => [pic.dataset.id, Number(pic.dataset.value)])"
        ));
        let scores: BTreeMap<String, f32> = self
            .run
            .scores(&control.score)
            .unwrap()
            .into_iter()
            .collect();
        for (id, value) in &shown {
            assert_eq!(scores.get(id), Some(value), "{id}");
        }
        let is_kept = |score: f32| (score >= control.now) == (control.flag == "min");
        let decided: Vec<sluice_manifest::rows::FilterRow> =
            self.run.rows("filter/decisions").unwrap();
        let kept = decided.iter().filter(|row| row.keep);
        let distance = |score: f32| (score - control.now).abs();
        let nearest = |mut distances: Vec<f32>| {
            distances.sort_by(f32::total_cmp);
            distances.truncate(STRIP);
            distances
        };
        let expected = kept.map(|row| distance(scores[row.image_id.as_str()]));
        let found = shown.iter().filter(|(_, score)| is_kept(*score));
        let found: Vec<f32> = found.map(|(_, score)| distance(*score)).collect();
        assert_eq!(
            nearest(found),
            nearest(expected.collect()),
            "{}",
            control.score
        );
        assert!(shown.len() <= 2 * STRIP && control.kept <= control.came);
    }

    /// An arrow key moves the slider to the next exact threshold.
    fn check_arrow(&mut self, article: &str) {
        self.value(&format!(
            "{article}.querySelector('input[type=range]').focus()"
        ));
        let number = format!("{article}.querySelector('input[type=number]').valueAsNumber");
        let before = self.value(&number).as_f64().unwrap();
        self.browser.press("ArrowLeft", 37).unwrap();
        assert!(self.value(&number).as_f64().unwrap() < before);
        self.value(&format!("{article}.querySelector('button').click()"));
    }
}

/// Runs the filter with these conditions. Returns the numbers of its input and of kept images.
fn refiltered(filtered: &Run, conditions: &[String]) -> (u64, u64) {
    let receipts = filtered.receipts_of("filter", UnitKind::Partition).unwrap();
    let before: Option<&StepName> = receipts[0].survivors_of.as_ref();
    let mut command = vec!["sluice-filter", "--run", &filtered.uri];
    if let Some(step) = before {
        command.extend(["--survivors-of", step.as_str()]);
    }
    command.extend(conditions.iter().flat_map(|condition| condition.split(' ')));
    run(&command).unwrap();
    let counts = filtered.counts("filter", UnitKind::Partition).unwrap();
    (counts.input, counts.kept)
}

#[test]
fn the_page_of_the_demo_works_in_a_browser() {
    let (Some(input), Some(models)) = (demo_input(), models(&["efficientnet-lite0", "opennsfw"]))
    else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let [run, output] = ["run", "output"].map(|name| place.path().join(name));
    let flags = ["run", "--preset", "small", "--input", word(&input)];
    let places = [
        "--run",
        word(&run),
        "--output",
        word(&output),
        "--models",
        word(&models),
    ];
    let said = sluice(&[&flags[..], &places].concat()).unwrap();
    assert_eq!(said.failed, None, "{said:?}");
    let run = Run::at(word(&run)).unwrap();
    check(&run, &["exact", "dedup"]);
}
