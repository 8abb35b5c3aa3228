//! The report, looked at by a real browser (SOTTO_TEST_BROWSER; CI names Debian's chromium): every
//! chart is drawn, nothing is complained of or asked for, nothing scrolls sideways on a phone, all
//! text can be read in light and dark, and no string of a record runs. What the browser saw is kept
//! in target/tmp/report-*.png, for a person to look at.

#![allow(clippy::unwrap_used)]

mod browser;
mod data;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use browser::{Browser, View};
use data::{PLAIN, Words};
use sha2::{Digest, Sha256};
use sotto_bench::found::Found;
use sotto_bench::html::html;

const LOOK: &str = include_str!("look.js");

const VIEWS: [View; 4] = [
    View { width: 390, theme: "light" },
    View { width: 390, theme: "dark" },
    View { width: 1280, theme: "light" },
    View { width: 1280, theme: "dark" },
];

/// Strings that would do something if any of them were taken for more than text.
const HOSTILE: Words = Words {
    name: "</style><h6>plan</h6>",
    cpu: "</script><script>window.ran = 1</script><!-- <script>",
    command: "\"><img src=x onerror=\"window.ran = 2\"> '><svg onload=window.ran=3>",
    engine: "<b onmouseover='window.ran = 4'>&lt;\u{2028}avx</b>",
};

struct Made {
    folder: tempfile::TempDir,
    page: PathBuf,
}

/// What the command makes of records and two scenarios, the one with a name of its own.
fn report(words: Words) -> Made {
    let folder = tempfile::tempdir().unwrap();
    data::write(folder.path(), words);
    let page = folder.path().join("report.html");
    let of_repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenarios = of_repository.join("scenarios");
    let small = fs::read_to_string(scenarios.join("small.toml")).unwrap();
    let named = small.replace("name = \"small\"", &format!("name = '{}'", words.name));
    assert!(words.name == "small" || named != small);
    let scenario = folder.path().join("scenario.toml");
    fs::write(&scenario, named).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_sotto-bench"))
        .args(["report", "--record"])
        .arg(folder.path())
        .arg("--scenario")
        .arg(scenarios.join("mimi.toml"))
        .arg("--scenario")
        .arg(scenario)
        .arg("--prices")
        .arg(of_repository.join("../deploy/prices.toml"))
        .arg("--out")
        .arg(&page)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    assert!(said.contains("8 records, 2 plans"), "{said}");
    Made { folder, page }
}

/// What is wrong with a page.
fn findings(browser: &mut Browser, page: &Path, view: View) -> Vec<String> {
    browser.open(page, view);
    let seen = browser.run(LOOK);
    let seen = seen.as_array().unwrap().iter().map(|what| what.as_str().unwrap().to_owned());
    seen.chain(browser.complaints()).collect()
}

#[test]
fn a_report_is_whole_and_readable_on_phones_and_desktops_in_light_and_dark() {
    let Some(mut browser) = Browser::start() else { return };
    let made = report(PLAIN);
    let mut wrong = Vec::new();
    for view in VIEWS {
        let View { width, theme } = view;
        browser.open(&made.page, view);
        let shot = format!("{}/report-{width}-{theme}.png", env!("CARGO_TARGET_TMPDIR"));
        browser.screenshot(Path::new(&shot));
        let found = findings(&mut browser, &made.page, view);
        wrong.extend(found.into_iter().map(|what| format!("{width} px, {theme}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let charts = browser.run("document.querySelectorAll('figure').length");
    assert_eq!(charts.as_u64(), Some(20), "2 plans of 4, load 4, kernel 3, GPU 2, operations 3");
}

#[test]
fn a_point_says_its_numbers_when_pointed_at() {
    let Some(mut browser) = Browser::start() else { return };
    let made = report(PLAIN);
    browser.open(&made.page, VIEWS[2]);
    let place = browser.run(
        "(() => { const titles = [...document.querySelectorAll('figcaption strong')]; \
         const title = titles.find((title) => title.textContent === 'Latency'); \
         const dot = title.closest('figure').querySelector('circle'); \
         dot.scrollIntoView({ block: 'center' }); const box = dot.getBoundingClientRect(); \
         return [box.x + box.width / 2, box.y + box.height / 2]; })()",
    );
    browser.point_at(place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    let tip =
        "[...document.querySelectorAll('g[aria-label=tip]')].map((g) => g.textContent).join('')";
    let shown = browser.run(&format!(
        "new Promise((done) => {{ const wait = () => {tip} ? done({tip}) : \
         requestAnimationFrame(wait); wait(); }})"
    ));
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("p99: ") && shown.contains("answered a second: "), "{shown}");
}

#[test]
fn what_records_say_is_text_and_never_runs() {
    let made = report(HOSTILE);
    let page = fs::read_to_string(&made.page).unwrap();
    assert_eq!(page.matches("<script").count(), 4, "the data, two libraries and our own");
    assert_eq!(page.matches("</script").count(), 4);
    assert!(!page.contains("<img") && !page.contains("<svg onload"));
    let Some(mut browser) = Browser::start() else { return };
    for view in [VIEWS[0], VIEWS[3]] {
        // A policy that had to stop something would be complained of.
        assert_eq!(findings(&mut browser, &made.page, view), [""; 0]);
        assert!(browser.run("window.ran").is_null());
        let strange = browser.run("document.querySelectorAll('img, b, h6, iframe, object').length");
        assert_eq!(strange.as_u64(), Some(0));
        let text = browser.run("document.body.innerText");
        let text = text.as_str().unwrap();
        assert!(text.contains(HOSTILE.name), "said as it is");
        assert!(text.contains(HOSTILE.cpu), "said as it is");
        assert!(text.contains(HOSTILE.command), "said as it is");
        assert!(text.contains("<b onmouseover='window.ran = 4'>&lt;"), "said as it is");
    }
}

#[test]
fn a_page_asks_for_nothing_and_holds_plans_against_what_was_measured() {
    let made = report(PLAIN);
    let page = fs::read_to_string(&made.page).unwrap();
    let head = page.split("<style>").next().unwrap();
    assert!(head.contains("default-src 'none'; script-src 'sha256-"), "{head}");
    let scripts = page.split("<script").skip(1).map(|rest| rest.split("</script>").next().unwrap());
    let outside = scripts.fold(page.clone(), |page, script| page.replace(script, ""));
    for word in ["src=", "href=", "url(", "@import", "http:", "https:"] {
        assert!(!outside.contains(word), "{word}");
    }
    assert!(page.contains(r#""name":"measured","tone":"orange","stroke":"points""#));
    drop(made.folder);
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
    let Some(mut browser) = Browser::start() else { return };
    let made = report(PLAIN);
    let page = fs::read_to_string(&made.page).unwrap();
    let policy = page.find("<meta http-equiv").unwrap();
    let policy_end = policy + page[policy..].find('>').unwrap() + 1;
    let unbound = format!("{}{}", &page[..policy], &page[policy_end..]);
    let cases = [
        ("not drawn", page.replace("<div class=\"plot\"></div>", "")),
        ("error: ", page.replace("\"kind\":\"bars\"", "\"kind\":\"pies\"")),
        ("marks, expected", unbound.replace("Plot.barX(shown,", "Plot.barX(shown.slice(1),")),
        ("scrolls sideways", page.replace("</main>", "<p style=\"width:30rem\">-</p></main>")),
        ("contrast ", page.replace("--quiet: #59636e", "--quiet: #9aa4ae")),
        ("contrast ", page.replace("--quiet: #a0a9b2", "--quiet: #515a62")),
        ("small text", page.replace("</main>", "<p style=\"font-size:9px\">-</p></main>")),
        ("request: ", unbound.replace("</main>", "<img src=\"nothing.png\"></main>")),
        ("log: ", page.replace("</main>", "<img src=\"nothing.png\"></main>")),
        ("console: ", unbound.replace("</main>", "<script>console.error(1)</script></main>")),
    ];
    let path = made.folder.path().join("broken.html");
    for (expected, broken) in cases {
        assert_ne!(broken, page, "{expected}: not broken");
        fs::write(&path, broken).unwrap();
        let views = [VIEWS[0], VIEWS[1]];
        let found: Vec<_> =
            views.into_iter().flat_map(|view| findings(&mut browser, &path, view)).collect();
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
    assert!(!made.status.success());
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(said.contains("found no record, expected one"), "{said}");
}
