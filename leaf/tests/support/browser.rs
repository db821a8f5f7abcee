//! A headless Chromium, driven over the pipe of its DevTools protocol: commands and events are JSON between NUL bytes
//! on the file descriptors 3 and 4. Whoever includes it has [`processes`] beside it.
//!
//! [`processes`]: crate::processes

#![expect(clippy::unwrap_used, reason = "whoever drives a browser fails where something is not as it must be")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::processes::{looked_for, send_signal};

/// Time after which the browser counts as dead.
const PATIENCE: Duration = Duration::from_mins(1);

/// Without a user's profile, updates, or anything else that asks the network by itself. As root it runs without its
/// sandbox only.
const OPTIONS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    "--remote-debugging-pipe",
];

/// What came from the browser and was not fetched yet.
#[derive(Debug, Default)]
struct Inbox {
    answers: BTreeMap<u64, Value>,
    events: Vec<Value>,
    is_gone: bool,
}

/// A browser and the tab that is looked at; it ends with the value.
#[derive(Debug)]
pub(crate) struct Tab {
    child: Child,
    commands: ChildStdin,
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
    last: u64,
    session: String,
    _profile: tempfile::TempDir,
}

impl Tab {
    /// Starts a browser with an empty tab of 1200 by 800.
    pub(crate) fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The shell puts the pipes where the browser looks for them.
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"]).args(OPTIONS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let has_chromium =
            Command::new("sh").args(["-c", "command -v chromium"]).stdout(Stdio::null()).status().unwrap();
        assert!(has_chromium.success(), "there is no `chromium`: `.ci/test` installs it");
        let mut child = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let inbox: Arc<(Mutex<Inbox>, Condvar)> = Arc::default();
        let (filled, output) = (inbox.clone(), child.stdout.take().unwrap());
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let message: Value = serde_json::from_slice(&message).unwrap();
                let mut inbox = filled.0.lock().unwrap();
                match message["id"].as_u64() {
                    Some(id) => drop(inbox.answers.insert(id, message)),
                    None => inbox.events.push(message),
                }
                filled.1.notify_all();
            }
            filled.0.lock().unwrap().is_gone = true;
            filled.1.notify_all();
        });
        let mut tab = Self { child, commands, inbox, last: 0, session: String::new(), _profile: profile };
        tab.open_another();
        tab
    }

    /// Opens another tab and turns to it; the one before stays, and is told.
    pub(crate) fn open_another(&mut self) -> String {
        let before = std::mem::take(&mut self.session);
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        attached["sessionId"].as_str().unwrap().clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.resize(1200, 800);
        before
    }

    /// Turns to a tab that was left; tells which one is left now.
    pub(crate) fn turn_to(&mut self, tab: String) -> String {
        std::mem::replace(&mut self.session, tab)
    }

    /// Sends a command and waits for its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.ask(method, parameters);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Sends a command and waits for what is answered: a `result` or an `error`.
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(&[message.to_string().as_bytes(), b"\0"].concat()).unwrap();
        let (inbox, filled) = &*self.inbox;
        let is_waiting = |inbox: &mut Inbox| !inbox.answers.contains_key(&self.last) && !inbox.is_gone;
        let (mut inbox, _) = filled.wait_timeout_while(inbox.lock().unwrap(), PATIENCE, is_waiting).unwrap();
        inbox.answers.remove(&self.last).unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// Loads an address.
    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Loads the page again.
    pub(crate) fn reload(&mut self) {
        self.call("Page.reload", json!({}));
    }

    /// The value of an expression, which may be a promise.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", evaluation(expression));
        let result = &answer["result"];
        assert!(result.is_object() && result["exceptionDetails"].is_null(), "{expression}: {answer}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true. A page that is just being left has no values.
    pub(crate) fn until(&mut self, expression: &str) {
        let is_true = evaluation(&format!("Boolean({expression})"));
        let seen = looked_for(PATIENCE, || {
            let answer = self.ask("Runtime.evaluate", is_true.clone());
            let thrown = &answer["result"]["exceptionDetails"];
            assert!(thrown.is_null(), "{expression}: {answer}");
            (answer["result"]["result"]["value"] == true).then_some(())
        });
        if seen.is_none() {
            let page = self.value("location.href + '\\n' + document.body.innerText");
            panic!("not in time: {expression}\n{}\n{:?}", page.as_str().unwrap_or_default(), self.errors());
        }
    }

    /// Waits until the page shows this text.
    pub(crate) fn shows(&mut self, what: &str) {
        self.until(&format!("document.body?.innerText.includes({})", json!(what)));
    }

    /// Waits for an element that a selector finds, with this text in it, and clicks on it with the mouse.
    pub(crate) fn click(&mut self, selector: &str, holding: &str) {
        let find = format!(
            "[...document.querySelectorAll({})].find(node => node.textContent.includes({}) && !node.disabled)",
            json!(selector),
            json!(holding)
        );
        self.until(&format!("{find}?.getClientRects().length"));
        let place = self.value(&format!(
            "(() => {{ const node = {find}; node.scrollIntoView({{ block: 'center' }}); const box = node.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key such as `Enter`, as a keyboard does.
    pub(crate) fn press(&mut self, key: &str) {
        let code = BTreeMap::from([("Tab", 9), ("Enter", 13), ("Escape", 27), (" ", 32)])[key];
        for kind in ["keyDown", "keyUp"] {
            let typed = match (kind, key) {
                ("keyDown", "Enter") => "\r",
                ("keyDown", " ") => " ",
                _ => "",
            };
            self.call(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "text": typed }),
            );
        }
    }

    /// Types into what has the focus.
    pub(crate) fn enter(&mut self, typed: &str) {
        self.call("Input.insertText", json!({ "text": typed }));
    }

    /// Replaces the text of a field.
    pub(crate) fn fill(&mut self, selector: &str, typed: &str) {
        let field = format!("document.querySelector({})", json!(selector));
        self.until(&field);
        self.value(&format!("{field}.focus(), {field}.select()"));
        self.enter(typed);
        self.until(&format!("{field}.value === {}", json!(typed)));
    }

    /// Shows a page of the web page.
    pub(crate) fn page(&mut self, name: &str) {
        self.value(&format!("location.hash = '#/{name}', undefined"));
        self.until(&format!(
            "document.querySelector('nav a[aria-current]')?.hash === '#/{}'",
            name.split('/').next().unwrap()
        ));
    }

    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Sets what the user's system prefers.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Errors and warnings of the page so far, but for those of addresses that hold one of `expected`.
    pub(crate) fn errors_beside(&self, expected: &[&str]) -> Vec<String> {
        let inbox = self.inbox.0.lock().unwrap();
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => matches!(event["params"]["type"].as_str(), Some("error" | "warning")),
            Some("Log.entryAdded") => matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        let told = inbox.events.iter().filter(is_error).map(|event| event["params"].to_string());
        told.filter(|told| !expected.iter().any(|expected| told.contains(expected))).collect()
    }

    /// Errors and warnings of the page so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors_beside(&[])
    }

    /// Every request of the page so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let inbox = self.inbox.0.lock().unwrap();
        let asked = inbox.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.map(|event| event["params"]["request"].clone()).collect()
    }

    /// Their addresses.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked().iter().map(|request| request["url"].as_str().unwrap().to_owned()).collect()
    }
}

/// What asks for the value of an expression.
fn evaluation(expression: &str) -> Value {
    json!({ "expression": expression, "awaitPromise": true, "returnByValue": true })
}

impl Drop for Tab {
    fn drop(&mut self) {
        // Its helpers are in its process group and end with it.
        send_signal(&self.child, "TERM");
        looked_for(PATIENCE, || self.child.try_wait().unwrap()).expect("a browser that is told to end ends");
    }
}
