//! A browser that a test looks into and presses buttons in, over Chromium's
//! `DevTools` protocol.
//!
//! This module decides how the browser is started, and what counts as a
//! complaint of its: an exception that no script caught, and whatever the
//! content security policy forbade.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, needs_browser, process::PeerProcess, secs};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// How long the browser may take for anything.
const PATIENCE: Duration = secs(60);

/// A browser with one page.
pub struct Browser {
    /// It is gone when this is dropped.
    pub process: PeerProcess,
    socket: WebSocketStream<TcpStream>,
    session: String,
    next: u64,
    /// What went wrong in the page.
    complaints: Vec<String>,
    /// What it has of its own on the disk.
    profile: TempDir,
}

impl Browser {
    /// Opens `url`. `None` if there is no browser here.
    pub async fn open(guard: &str, url: &str) -> Option<Self> {
        Self::open_with(guard, url, &[]).await
    }

    /// The same with more options for the browser.
    pub async fn open_with(guard: &str, url: &str, options: &[&str]) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = needs_browser(profile.path())?;
        command.args(["--remote-debugging-port=0", "--window-size=1280,860"]);
        command.args(options).arg("about:blank");
        let process = PeerProcess::guarded(guard, &command).unwrap();

        let (port, path) = written(&profile.path().join("DevToolsActivePort")).await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let address = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client_async(address, stream).await.unwrap();
        let mut browser = Self {
            process,
            socket,
            session: String::new(),
            next: 0,
            complaints: Vec::new(),
            profile,
        };
        browser.attach().await;
        browser.call("Page.navigate", json!({ "url": url })).await;
        Some(browser)
    }

    async fn attach(&mut self) {
        let page = loop {
            let targets = self.call("Target.getTargets", json!({})).await;
            let targets = targets["targetInfos"].as_array().unwrap();
            let page = targets.iter().find(|target| target["type"] == "page");
            if let Some(page) = page {
                break page["targetId"].clone();
            }
            sleep(ms(100)).await;
        };
        let flat = json!({ "targetId": page, "flatten": true });
        let attached = self.call("Target.attachToTarget", flat).await;
        self.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
        self.resize(1280, 860).await;
    }

    /// What the expression is worth; a promise is waited for.
    pub async fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        let error = &answer["exceptionDetails"];
        assert!(error.is_null(), "{expression}: {error:#}");
        answer["result"]["value"].clone()
    }

    /// Waits until the expression is true, and says how long that took.
    pub async fn until(&mut self, expression: &str, within: Duration) -> Duration {
        let began = Instant::now();
        while self.value(expression).await != true {
            if began.elapsed() > within {
                let page = self.value("document.body.innerText").await;
                panic!("not within {within:?}: {expression}\n{page:#}");
            }
            sleep(ms(50)).await;
        }
        began.elapsed()
    }

    /// Puts another page in front of it.
    pub async fn hide(&mut self) {
        let session = std::mem::take(&mut self.session);
        let blank = json!({ "url": "about:blank" });
        let other = self.call("Target.createTarget", blank).await;
        let other = json!({ "targetId": other["targetId"] });
        self.call("Target.activateTarget", other).await;
        self.session = session;
    }

    /// How large its window is.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Presses what the selector finds, as the keyboard would.
    pub async fn press(&mut self, selector: &str) {
        let press = format!(
            "(() => {{ const button = document.querySelector({}); \
             button.focus(); button.click(); return document.activeElement === button }})()",
            json!(selector)
        );
        assert_eq!(self.value(&press).await, true, "{selector} takes no focus");
    }

    /// What the page looks like, as a PNG file beside the profile or, for
    /// people, in the folder that `HEARTBEAT_SCREENSHOTS` names.
    pub async fn picture(&mut self, name: &str) {
        let format = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", format).await;
        let png = BASE64
            .decode(shot["data"].as_str().unwrap().as_bytes())
            .unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name} is no picture");
        let folder = match std::env::var_os("HEARTBEAT_SCREENSHOTS") {
            Some(folder) => folder.into(),
            None => self.profile.path().to_owned(),
        };
        fs::write(folder.join(name).with_extension("png"), png).unwrap();
    }

    /// Nothing went wrong in the page.
    pub fn assert_content(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut call = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        let call = Message::text(call.to_string());
        self.socket.send(call).await.unwrap();
        let answer = timeout(PATIENCE, self.answer()).await;
        answer.unwrap_or_else(|_| panic!("{method} isn't answered"))
    }

    async fn answer(&mut self) -> Value {
        loop {
            let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else {
                continue;
            };
            let said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == self.next {
                assert!(said["error"].is_null(), "{said:#}");
                return said["result"].clone();
            }
            let entry = &said["params"]["entry"];
            let complains = said["method"] == "Runtime.exceptionThrown"
                || (said["method"] == "Log.entryAdded" && entry["source"] == "security");
            if complains {
                self.complaints.push(said["params"].to_string());
            }
        }
    }
}

/// The port that the browser has chosen, and the path of its socket.
async fn written(file: &Path) -> (u16, String) {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n') {
            if let (Ok(port), true) = (port.parse(), path.starts_with('/')) {
                return (port, path.trim_end().to_owned());
            }
        }
        assert!(began.elapsed() < PATIENCE, "the browser doesn't start");
        sleep(ms(50)).await;
    }
}
