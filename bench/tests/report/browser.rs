//! A real browser, led through its own pipe (Chrome DevTools Protocol): pages at any width and in
//! either theme, what it complains of, and what a script in the page finds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than any answer takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) width: u32,
    pub(crate) theme: &'static str,
}

impl Browser {
    /// The one that SOTTO_TEST_BROWSER names; none where it names none.
    pub(crate) fn start() -> Option<Self> {
        let Ok(program) = std::env::var("SOTTO_TEST_BROWSER") else {
            println!("skipped: no browser is named (SOTTO_TEST_BROWSER=chromium takes Debian's)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // It reads what it is told from descriptor 3 and answers on 4. Its sandbox wants another
        // user than root; all it opens are pages of these tests, which may ask for nothing.
        let line = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#;
        let mut child = Command::new("sh")
            .args(["-c", line, "sh", &program, "--headless=new", "--no-sandbox"])
            .args(["--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|bytes| bytes > 1) {
                message.pop();
                let value = serde_json::from_slice(&message).unwrap();
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (calls, session, events) = (0, None, Vec::new());
        let mut browser = Self { child, to, from, calls, session, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn receive(&mut self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("the browser says nothing any more")
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let answer = self.receive();
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Opens a file, from nothing, and waits until it is there.
    pub(crate) fn open(&mut self, page: &Path, view: View) {
        let mobile = view.width < 600;
        let metrics = json!({
            "width": view.width, "height": 844, "deviceScaleFactor": 1, "mobile": mobile,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let theme = json!([{ "name": "prefers-color-scheme", "value": view.theme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": theme }));
        self.events.clear();
        let address = format!("file://{}", page.display());
        let gone = self.call("Page.navigate", json!({ "url": address }));
        assert!(gone["errorText"].is_null(), "{gone}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
        // What is sized after it was laid out.
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    }

    /// The value of an expression.
    pub(crate) fn run(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    /// Moves the mouse.
    pub(crate) fn point_at(&mut self, x: f64, y: f64) {
        let params = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.call("Input.dispatchMouseEvent", params);
    }

    /// Errors and warnings since the page was opened, and whatever it asked for beside itself.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaint = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(format!(
                    "error: {}",
                    params["exceptionDetails"]["exception"]["description"]
                )),
                "Runtime.consoleAPICalled" => {
                    let is_bad =
                        ["error", "warning", "assert"].iter().any(|t| params["type"] == *t);
                    is_bad.then(|| format!("console: {params}"))
                }
                "Log.entryAdded" => {
                    let level = &params["entry"]["level"];
                    (level == "error" || level == "warning").then(|| format!("log: {params}"))
                }
                "Network.requestWillBeSent" => {
                    let is_page = params["type"] == "Document";
                    (!is_page).then(|| format!("request: {}", params["request"]["url"]))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// All of the page, as it is seen.
    pub(crate) fn screenshot(&mut self, to: &Path) {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", params);
        std::fs::write(to, STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
