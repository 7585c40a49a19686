//! A browser: Chromium, controlled through its DevTools protocol over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::places;

/// The file of axe-core, which checks a page's accessibility. It is in the folder of the servers.
const AXE: &str = "axe.min.js";
/// The rules of axe-core in use: WCAG 2.1, levels A and AA, including contrast.
const RULES: [&str; 4] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];

/// A browser with one page.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next: u64,
    session: Value,
    _profile: tempfile::TempDir,
    /// Errors of the page or its script.
    pub errors: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Browser {
    /// Opens a file. Returns `None` if there is no browser; the calling test counts as skipped.
    ///
    /// # Errors
    /// When the browser does not start or does not respond.
    pub fn open(page: &Path) -> Result<Option<Self>> {
        let Some(program) = sluice_testkit::browser() else {
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        // The browser reads requests from descriptor 3 and writes responses to 4.
        let pipes = "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1 </dev/null";
        let mut child = Command::new("sh")
            .args(["-c", pipes])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut browser = Self {
            input: child.stdin.take().context("no pipe to the browser")?,
            output: BufReader::new(child.stdout.take().context("no pipe from the browser")?),
            child,
            next: 0,
            session: Value::Null,
            _profile: profile,
            errors: Vec::new(),
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.ask("Target.attachToTarget", attach)?["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.ask(domain, json!({}))?;
        }
        let url = format!("file://{}", page.display());
        browser.ask("Page.navigate", json!({ "url": url }))?;
        while browser.value("document.readyState")? != "complete" {}
        Ok(Some(browser))
    }

    /// Sends a request of the DevTools protocol and returns the response.
    ///
    /// # Errors
    /// When the browser refuses the request or has exited.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let mut request = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_null() {
            request["sessionId"] = self.session.clone();
        }
        write!(self.input, "{request}\0")?;
        self.input.flush()?;
        loop {
            let mut answer = Vec::new();
            self.output.read_until(0, &mut answer)?;
            ensure!(answer.pop() == Some(0), "the browser ended");
            let mut answer: Value = serde_json::from_slice(&answer)?;
            if answer["id"] == self.next {
                ensure!(answer["error"].is_null(), "{method}: {answer}");
                return Ok(answer["result"].take());
            }
            let is_error = answer["method"] == "Runtime.exceptionThrown"
                || answer["params"]["entry"]["level"] == "error";
            if is_error {
                self.errors.push(answer.to_string());
            }
        }
    }

    /// Returns the value of an expression in the page. A promise is awaited.
    ///
    /// # Errors
    /// When the expression throws.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.ask("Runtime.evaluate", parameters)?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression:.200}: {thrown}");
        Ok(answer["result"]["value"].take())
    }

    /// Presses a key.
    ///
    /// # Errors
    /// When the browser has exited.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", key)?;
        }
        Ok(())
    }

    /// Shows the page in dark colours, or in light ones.
    ///
    /// # Errors
    /// When the browser has exited.
    pub fn dark(&mut self, is_dark: bool) -> Result<()> {
        let value = if is_dark { "dark" } else { "light" };
        let feature = json!({"name": "prefers-color-scheme", "value": value});
        self.ask("Emulation.setEmulatedMedia", json!({"features": [feature]}))?;
        Ok(())
    }

    /// Returns the accessibility faults that axe-core finds: rules with the elements that break
    /// them. Returns `None` if axe-core is missing; the calling test counts as skipped.
    ///
    /// # Errors
    /// When axe-core fails.
    #[expect(clippy::disallowed_methods, reason = "axe-core is a local file")]
    pub fn not_accessible(&mut self) -> Result<Option<Vec<String>>> {
        let Some(axe) = places::server(AXE) else {
            return Ok(None);
        };
        self.value(&format!("{};0", std::fs::read_to_string(axe)?))?;
        let run = format!(
            "axe.run({{runOnly: {}, resultTypes: ['violations'], elementRef: false}}).then(found => \
             found.violations.flatMap(rule => rule.nodes.slice(0, 3).map(node => \
             `${{rule.id}}: ${{node.html.slice(0, 200)}}: ${{node.failureSummary}}`)))",
            json!(RULES)
        );
        let found = self.value(&run)?;
        Ok(Some(serde_json::from_value(found)?))
    }
}
