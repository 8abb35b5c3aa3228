//! Kannel for tests: bearerbox and smsbox, with Kannel's fake message centre behind them (Debian
//! `kannel` and `kannel-extras`).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::sync::mpsc;

use super::postgres::said::there;

/// The user and the password of `sendsms`.
pub(crate) const USER: &str = "sotto";
/// See [`USER`].
pub(crate) const PASSWORD: &str = "secret77";

const BEARERBOX: &str = "/usr/sbin/bearerbox";
const SMSBOX: &str = "/usr/sbin/smsbox";
const FAKE_CENTRE: &str = "/usr/lib/kannel/test/fakesmsc";

/// Kannel, which runs until it is dropped.
pub(crate) struct Kannel {
    /// Ended in this order.
    children: Vec<Child>,
    lines: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
    /// Where `sendsms` listens.
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Kannel {
    /// Starts it; `None` where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let all = [BEARERBOX, SMSBOX, FAKE_CENTRE].iter().all(|path| Path::new(path).exists());
        if !there("Kannel", all, "apt-get install kannel kannel-extras") {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("sotto-kannel-").tempdir().unwrap();
        let [admin, boxes, centre, port] = free_ports();
        let file = folder.path().join("kannel.conf");
        fs::write(&file, configuration(admin, boxes, centre, port)).unwrap();
        let mut started = Self {
            children: Vec::new(),
            lines: tokio::sync::Mutex::new(mpsc::unbounded_channel().1),
            port,
            _folder: folder,
        };
        started.run(Command::new(BEARERBOX).arg(&file).stderr(Stdio::null()), boxes);
        started.run(Command::new(SMSBOX).arg(&file).stderr(Stdio::null()), port);
        let mut fake = Command::new(FAKE_CENTRE);
        // It only receives: no message of its own.
        fake.args(["-m", "0", "-H", "127.0.0.1", "-r", &centre.to_string(), "1 2 text none"]);
        let fake = fake.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut fake = fake.spawn().unwrap();
        let output = BufReader::new(fake.stderr.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the program.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Some((_, rest)) = line.split_once("Got message ") else { continue };
                let Some((_, text)) = rest.split_once(": <") else { continue };
                let _ = sender.send(text.strip_suffix('>').unwrap_or(text).to_owned());
            }
        });
        started.lines = tokio::sync::Mutex::new(lines);
        started.children.insert(0, fake);
        Some(started)
    }

    /// Starts a program and waits until it listens.
    fn run(&mut self, command: &mut Command, port: u16) {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{command:?} ended");
            std::thread::yield_now();
        }
        self.children.insert(0, child);
    }

    /// The next line that reached the centre: sender, receiver, `text` and the first line of a
    /// message; then its other lines, each by itself.
    pub(crate) async fn line(&self) -> String {
        self.lines.lock().await.recv().await.expect("the fake centre has ended")
    }
}

impl Drop for Kannel {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that are free now: Kannel has to be told which to take.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn configuration(admin: u16, boxes: u16, centre: u16, port: u16) -> String {
    format!(
        "group = core\nadmin-port = {admin}\nadmin-interface = 127.0.0.1\nadmin-password = x\n\
         smsbox-port = {boxes}\nsmsbox-interface = 127.0.0.1\nbox-allow-ip = 127.0.0.1\n\
         dlr-storage = internal\n\n\
         group = smsc\nsmsc = fake\nsmsc-id = fake\nport = {centre}\n\
         connect-allow-ip = 127.0.0.1\n\n\
         group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = {port}\n\
         sendsms-interface = 127.0.0.1\nglobal-sender = 12345\n\n\
         group = sendsms-user\nusername = {USER}\npassword = {PASSWORD}\nmax-messages = 1\n"
    )
}
