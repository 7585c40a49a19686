//! The report's page in a browser: Chromium, driven by its DevTools protocol over a pipe.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sluice_harness::Context;
use sluice_report::counted;
use sluice_report::curve::Curve;
use sluice_report::walk::Walk;

use crate::support::{again, judged, shared, store};

/// A browser with one page.
struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next: u64,
    session: Value,
    /// Errors that the page or its script made.
    errors: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Opens a page; none where there is no browser.
    fn open(url: &str, profile: &std::path::Path) -> Option<Self> {
        let program = sluice_testkit::browser()?;
        // The browser reads requests from descriptor 3 and answers to 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1 </dev/null",
            ])
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            next: 0,
            session: Value::Null,
            errors: Vec::new(),
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.ask("Target.attachToTarget", attach)["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.ask(domain, json!({}));
        }
        browser.ask("Page.navigate", json!({ "url": url }));
        while browser.value("document.readyState") != "complete" {}
        Some(browser)
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut request = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_null() {
            request["sessionId"] = self.session.clone();
        }
        write!(self.input, "{request}\0").unwrap();
        self.input.flush().unwrap();
        loop {
            let mut answer = Vec::new();
            self.output.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            let is_error = answer["method"] == "Runtime.exceptionThrown"
                || answer["params"]["entry"]["level"] == "error";
            if is_error {
                self.errors.push(answer.to_string());
            }
        }
    }

    /// Evaluates an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.ask("Runtime.evaluate", parameters);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", key);
        }
    }
}

/// The page's curves, in the order of its controls.
fn curves(run: &str) -> Vec<Curve> {
    let context = Context::look(run, "test", shared()).unwrap();
    let plan = context.plan().unwrap();
    let receipts = counted::receipts(&context).unwrap();
    let walk = Walk::new(&context, &plan, &receipts).unwrap();
    let findings = walk.findings(&HashSet::new()).unwrap();
    let controls = walk.scoring.controls.iter().zip(&findings.controls);
    let curves = controls.map(|(control, found)| {
        let (kept, regained) = (&found.kept, &found.regained);
        Curve::new(control.keep, control.threshold, kept, regained, false)
    });
    curves.collect()
}

#[test]
fn the_page_works_in_a_browser() {
    let run = judged("browser");
    again::<sluice_report::Args>(&run, "sluice-report");
    let page = store(&run).get("report/index.html").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    tempfile::NamedTempFile::new_in(folder.path())
        .and_then(|mut made| made.write_all(&page).map(|()| made))
        .unwrap()
        .persist(&file)
        .unwrap();
    let url = format!("file://{}", file.display());
    let Some(mut browser) = Browser::open(&url, &folder.path().join("profile")) else {
        return;
    };
    for (place, curve) in curves(&run).iter().enumerate() {
        let control = format!("document.querySelectorAll('.control')[{place}]");
        for threshold in curve.edges() {
            browser.value(&format!(
                "{{ const number = {control}.querySelector('input[type=number]'); \
                 number.value = '{threshold}'; number.dispatchEvent(new Event('input')); }}"
            ));
            let kept = curve.kept(threshold).unwrap().certain;
            let said = browser.value(&format!("{control}.querySelector('output').value"));
            let expected = format!("keeps {kept} of ");
            assert!(
                said.as_str().unwrap().starts_with(&expected),
                "{threshold}: {said}"
            );
            let flag = browser.value(&format!("{control}.querySelector('.flag').textContent"));
            let flag = flag.as_str().unwrap().to_owned();
            let written: f32 = flag.rsplit_once('=').unwrap().1.parse().unwrap();
            assert_eq!(written, threshold, "{flag}");
        }
    }
    // Arrow keys move the slider from one exact threshold to the next.
    browser.value("document.querySelector('.control button').click()");
    browser.value("document.querySelector('.control input[type=range]').focus()");
    let number = "document.querySelector('.control input[type=number]').valueAsNumber";
    let before = browser.value(number).as_f64().unwrap();
    browser.press("ArrowRight", 39);
    assert!(browser.value(number).as_f64().unwrap() > before);
    // A picture that may be NSFW is blurred until it is opened.
    let blur = "getComputedStyle(document.querySelector('.pic.nsfw svg')).filter";
    assert!(browser.value(blur).as_str().unwrap().starts_with("blur("));
    browser.value("document.querySelector('.pic.nsfw summary').click()");
    assert_eq!(browser.value(blur), "none");
    // The keyboard reaches everything that can be operated.
    let operable = "[...document.querySelectorAll('a, input, button, summary, [tabindex]')].filter(e => e.checkVisibility()).length";
    let operable = browser.value(operable).as_u64().unwrap();
    browser.value("document.activeElement.blur(); window.reached = new Set(); document.addEventListener('focusin', e => reached.add(e.target))");
    for _ in 0..=operable {
        browser.press("Tab", 9);
    }
    assert_eq!(browser.value("reached.size"), operable);
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
}
