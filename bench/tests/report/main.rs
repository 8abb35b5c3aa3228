//! The report, looked at by a real browser (SOTTO_TEST_BROWSER; CI names Debian's chromium): every
//! chart is drawn, nothing is complained of or asked for, nothing scrolls sideways on a phone, all
//! text can be read in light and dark, and no string of a record runs. What the browser saw is kept
//! in target/tmp/report-*.png, for a person to look at.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use sotto_bench::found::Found;
use sotto_bench::html::html;

const LOOK: &str = include_str!("look.js");

/// Width and theme, as the browser numbers it.
const VIEWS: [(u32, u32, &str); 4] =
    [(390, 1, "light"), (390, 0, "dark"), (1280, 1, "light"), (1280, 0, "dark")];

/// What records say, and strings in place of it that would do something if any of them were taken
/// for more than text.
const HOSTILE: [(&str, &str); 3] = [
    ("AMD EPYC", "</script><script>window.ran = 1</script><!-- <script>"),
    ("avx512", "<b onmouseover='window.ran = 4'>&lt;\u{2028}avx</b>"),
    ("target/release", "'><img src=x onerror='window.ran = 2'><svg onload=window.ran=3>"),
];

/// What the command makes of records of all kinds and two scenarios.
fn report(strings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cpu = ["kernel", "load-standard", "load-many", "build-standard", "build-many"];
    let more = ["startup-standard", "startup-many", "reload-standard", "reload-many"];
    let names = cpu.iter().chain(&more).map(|name| format!("2026-11-28-amd-epyc-2-cores/{name}"));
    for name in names.chain(["2026-11-29-nvidia-h200-gpu/gpu".to_owned()]) {
        let from = bench.join("record").join(&name).with_extension("json");
        let mut text = fs::read_to_string(from).unwrap();
        for (from, to) in strings {
            text = text.replace(from, to);
        }
        let to = folder.path().join(name.rsplit('/').next().unwrap()).with_extension("json");
        fs::write(to, text).unwrap();
    }
    // Servers of four packs were measured: a plan of as many is shown beside them.
    let small = fs::read_to_string(bench.join("scenarios/small.toml")).unwrap();
    let measured = folder.path().join("small.toml");
    fs::write(&measured, format!("packs = 4\n{small}")).unwrap();
    let page = folder.path().join("report.html");
    let made = Command::new(env!("CARGO_BIN_EXE_sotto-bench"))
        .args(["report", "--record"])
        .arg(folder.path())
        .arg("--scenario")
        .arg(bench.join("scenarios/mimi.toml"))
        .arg("--scenario")
        .arg(&measured)
        .arg("--prices")
        .arg(bench.join("../deploy/prices.toml"))
        .arg("--out")
        .arg(&page)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    assert!(said.contains("10 records, 2 plans"), "{said}");
    fs::read_to_string(page).unwrap()
}

/// What is wrong with a page in a view; none without a browser.
fn findings(page: &str, (width, theme, name): (u32, u32, &str)) -> Option<Vec<String>> {
    let Ok(browser) = std::env::var("SOTTO_TEST_BROWSER") else {
        println!("skipped: no browser is named (SOTTO_TEST_BROWSER=chromium takes Debian's)");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    // The script that looks is one that the page allows beside its own.
    let hash = STANDARD.encode(Sha256::digest(LOOK.as_bytes()));
    let allowed = page.replace("script-src ", &format!("script-src 'sha256-{hash}' "));
    let looked = allowed.replace("</body>", &format!("<script>{LOOK}</script></body>"));
    fs::write(folder.path().join("page.html"), looked).unwrap();
    // A window is never as narrow as a phone; a frame is.
    let frame =
        format!("<iframe src=page.html style='border:0' width={width} height=9000></iframe>");
    fs::write(folder.path().join("frame.html"), format!("<body style='margin:0'>{frame}")).unwrap();
    let shot = format!("{}/report-{width}-{name}.png", env!("CARGO_TARGET_TMPDIR"));
    let seen = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--no-first-run", "--disable-dev-shm-usage", "--enable-logging=stderr"])
        .args(["--virtual-time-budget=20000", &format!("--window-size={width},9000")])
        .arg(format!("--blink-settings=preferredColorScheme={theme}"))
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("--screenshot={shot}"))
        .arg(format!("file://{}", folder.path().join("frame.html").display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&seen.stderr).into_owned();
    let (looked, wrong): (Vec<_>, Vec<_>) = log
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .map(|line| format!("{width} px, {name}: {line}"))
        .partition(|line| line.contains("\"LOOKED "));
    assert_eq!(looked.len(), 1, "{log}");
    assert!(looked[0].contains(&format!(" {width} px\"")), "{looked:?}");
    Some(wrong)
}

#[test]
fn a_report_is_whole_and_readable_on_phones_and_desktops_in_light_and_dark() {
    let page = report(&[]);
    for view in VIEWS {
        let wrong = findings(&page, view).unwrap_or_default();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn what_records_say_is_text_and_never_runs() {
    let page = report(&HOSTILE);
    assert_eq!(page.matches("<script").count(), 4, "the data, two libraries and our own");
    assert_eq!(page.matches("</script").count(), 4);
    assert!(!page.contains("<img") && !page.contains("<svg onload"));
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;window.ran = 1"), "shown as it is");
    let wrong = findings(&page, VIEWS[0]).unwrap_or_default();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_page_asks_for_nothing_and_compares_plans_with_what_was_measured() {
    let page = report(&[]);
    let head = page.split("<style>").next().unwrap();
    assert!(head.contains("default-src 'none'; script-src 'sha256-"), "{head}");
    let scripts = page.split("<script").skip(1).map(|rest| rest.split("</script>").next().unwrap());
    let outside = scripts.fold(page.clone(), |page, script| page.replace(script, ""));
    for word in ["src=", "href=", "url(", "@import"] {
        assert!(!outside.contains(word), "{word}");
    }
    assert!(page.contains(r#""name":"measured","tone":"orange","stroke":"points""#));
    // A plan's hosts are one number in the headline and in the chart.
    assert!(page.contains("records a shard: 214 planned"), "mimi");
}

/// The libraries are those that the list beside them names, byte for byte.
#[test]
fn libraries_are_as_they_were_released() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("report");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for name in ["d3.min.js", "plot.min.js"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        let hash: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = list.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        assert!(line.contains(&hash), "{name} is {hash}, found {line}");
    }
}

/// The looks above would see it: a page broken in each way is found wrong for that.
#[test]
fn what_is_broken_is_found() {
    let page = report(&[]);
    let image = "<img src=\"nothing.png\"></main>";
    let (before, stack) = page.split_at(page.find("\"kind\":\"stack\"").unwrap());
    let no_such_row = stack.replacen("\"y\":0.0", "\"y\":99.0", 1);
    let cases = [
        ("not drawn", page.replacen("<div class=\"plot\"></div>", "<div></div>", 1)),
        ("marks, expected", format!("{before}{no_such_row}")),
        ("scrolls sideways", page.replace("</main>", "<p style=\"width:30rem\">-</p></main>")),
        ("contrast ", page.replace("--quiet: #59636e", "--quiet: #9aa4ae")),
        ("small text", page.replace("</main>", "<p style=\"font-size:9px\">-</p></main>")),
        ("Content Security Policy", page.replace("</main>", image)),
    ];
    for (expected, broken) in cases {
        assert_ne!(broken, page, "{expected}: not broken");
        let Some(found) = findings(&broken, VIEWS[0]) else { return };
        assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
    }
}

/// Nothing in it is no reason to panic, nor is a folder without records.
#[test]
fn nothing_is_said_of_nothing() {
    let page = html(&[], &[]);
    assert!(!page.contains("<figure"));
    let empty = tempfile::tempdir().unwrap();
    assert!(Found::all(&[empty.path().to_owned()]).unwrap().is_empty());
    let made = Command::new(env!("CARGO_BIN_EXE_sotto-bench"))
        .args(["report", "--record"])
        .arg(empty.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(!made.status.success() && said.contains("found no record, expected one"), "{said}");
}
