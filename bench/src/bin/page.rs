//! What the web page costs a browser: thousands of results that stream in, thousands of transfers that go on.
//!
//! Real programs, real files, a real Chromium without a window. Each scene tells the time for which the page's thread was
//! busy on a core, and how much of that were scripts and layout, as the browser counts it; the tasks that held it up for more than
//! 50 ms, which is what people notice; and the frames that came more than 50 ms after the one before. The yardstick is a
//! plain page of as many rows as there are results, all put there at once, scrolled alike and left alone alike: what the
//! browser needs for them without any program of ours.

#![expect(clippy::print_stdout, reason = "results are data")]

#[expect(dead_code, reason = "its other half is used by tests")]
#[path = "../../../leaf/tests/support/browser.rs"]
mod browser;
#[path = "../../../leaf/tests/support/processes.rs"]
mod processes;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use bench::{
    bare::now,
    library::{self, Program},
    table::milliseconds,
};
use clap::Parser;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::browser::Tab;

/// Measures the web page in a browser.
#[derive(Debug, Parser)]
struct Options {
    /// Results of the search
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1000..=10_000))]
    results: u16,
    /// Downloads at the same time, which are among the results
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(100..=1000))]
    transfers: u16,
    /// Seconds for which the downloads are watched
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=60))]
    watch: u8,
}

/// The name of the share, which finds all of it.
const SHARE: &str = "harvest";
/// The folder in it that is downloaded.
const SLOW: &str = "slow";
/// Bytes of a file that is downloaded, and of all of them a second: they last longer than they are watched.
const SLOW_BYTES: usize = 64 << 10;
const RATE: &str = "1MB";
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Frames of a scene that scrolls.
const FRAMES: u32 = 240;
/// Pixels that a wheel that is turned fast moves in each of them.
const WHEEL: u32 = 120;
/// What a node on its own is told, so that it looks for nobody.
const ALONE: [&str; 3] = ["--no-lan", "--no-dht", "--no-portmap"];

/// Collects what is slow, from now on.
const RECORDER: &str = "
    window.measured = { tasks: [], frames: [] };
    new PerformanceObserver(list => measured.tasks.push(...list.getEntries().map(task => task.duration))).observe({ type: 'longtask' });
    let last = performance.now();
    const look = () => { const now = performance.now(); measured.frames.push(now - last); last = now; requestAnimationFrame(look); };
    requestAnimationFrame(look);
    undefined";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let share = folder.path().join(SHARE);
    library::make(&share, usize::from(options.results - options.transfers), 0)?;
    make_slow(&share.join(SLOW), options.transfers)?;
    let start = async |name, options: &[&str]| {
        let program = if name == "ultrapeer" { "quictrack-ultrapeer" } else { "quictrack" };
        Program::start(program, &folder.path().join(name), &[options, &ALONE].concat()).await
    };
    let ultrapeer = start("ultrapeer", &["--founder"]).await?;
    let home = ultrapeer.status().await?.listen.context("the ultrapeer listens nowhere")?.to_string();
    let path = share.to_string_lossy().into_owned();
    let sharer = start("sharer", &["leaf", "--join", &home, "--share", &path, "--upload-limit", RATE]).await?;
    let leaf = start("leaf", &["leaf", "--join", &home]).await?;
    while !sharer.is_settled().await? || !leaf.status().await?.ready {
        sleep(LOOK).await;
    }

    println!("{} results, {} transfers; times in ms", options.results, options.transfers);
    println!(
        "{:<46}{:>7}{:>7}{:>8}{:>8}{:>9}{:>10}{:>7}{:>11}{:>7}",
        "", "wall", "busy", "script", "layout", "x plain", "tasks>50", "worst", "frames>50", "worst"
    );
    let mut page = Page { tab: Tab::open(), plain: BTreeMap::new() };
    // Time on a core: others may run here as well.
    page.tab.call("Performance.enable", json!({ "timeDomain": "threadTicks" }));
    plain(&mut page, &options);
    page.tab.go(&address(&folder.path().join("leaf"))?);
    page.tab.until("document.querySelector('form.search')");
    page.tab.value(RECORDER);
    searching(&mut page, &options);
    transferring(&mut page, &options, &leaf, &sharer).await?;
    println!(
        "x plain: busy time, as a multiple of that of the plain page when it is shown, scrolled alike, or left alone"
    );
    drop(page);
    for program in [leaf, sharer, ultrapeer] {
        program.stop()?;
    }
    Ok(())
}

/// A page of as many rows that look alike, put there at once.
fn plain(page: &mut Page, options: &Options) {
    page.tab.value(RECORDER);
    let rows = options.results;
    page.scene(Kind::Show, &format!("a plain page of {} rows", thousands(rows)), |tab| {
        tab.value(&format!(
            "document.body.innerHTML = '<ul>' + Array.from({{ length: {rows} }}, (_, row) => \
             `<li><div><button><bdi>${{row}} - river stone golden.flac</bdi></button><p><bdi>audio · harvest/Artist 0001 river/Album 1 stone/${{row}} - river stone golden.flac</bdi></p></div>\
             <span>1.0 kB</span><span>1 source<small>5 free</small></span><span><button>Download</button></span></li>`).join('') + '</ul>', undefined"
        ));
    });
    scroll(page, "the plain page");
    page.rest("the plain page", options.watch);
}

fn searching(page: &mut Page, options: &Options) {
    let results = thousands(options.results);
    page.tab.fill("form.search input", SHARE);
    page.scene(Kind::Show, "the first 1,000 results stream in", |tab| {
        tab.press("Enter");
        tab.until("document.querySelector('#outcome')?.textContent.includes('1,000 hits')");
    });
    page.scene(Kind::Show, &format!("{results} results stream in"), |tab| {
        tab.click(".outcome button", "Find all");
        tab.until(&format!("document.querySelector('#outcome')?.textContent.includes('complete: {results} hits')"));
    });
    scroll(page, "the results");
    page.scene(Kind::Show, "ordering them by name", |tab| {
        tab.value("const order = document.querySelector('.tools select'); order.value = 'name'; order.dispatchEvent(new Event('change', { bubbles: true })), undefined");
        tab.until("document.querySelector('main li:first-child .title')?.textContent.startsWith('00 - ')");
    });
    page.scene(Kind::Show, "typing 20 letters above them", |tab| {
        tab.value("document.querySelector('form.search input').focus()");
        (0..20).for_each(|_| tab.enter("x"));
    });
}

async fn transferring(page: &mut Page, options: &Options, leaf: &Program, sharer: &Program) -> Result<()> {
    let transfers = thousands(options.transfers);
    let peer = sharer.status().await?.peer_id;
    page.tab.page("transfers");
    let wish = json!({ "peer": peer, "path": format!("{SHARE}/{SLOW}") });
    let begun = now();
    leaf.client().post::<Value>("downloads", &wish).await?;
    let rows = format!("document.querySelector('.tabs .badge')?.textContent === '{}'", options.transfers);
    page.scene(Kind::Show, &format!("{transfers} downloads begin"), |tab| tab.until(&rows));
    page.rest("the downloads, which go on", options.watch);
    scroll(page, "the downloads, which go on");
    let status = leaf.status().await?;
    let left = status.downloads.as_ref().map_or(0, |downloads| downloads.values().sum::<u64>() - downloads["done"]);
    ensure!(left > 0, "all were done after {:.0} s: there was nothing to watch", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Scrolls from the top as a wheel does, and as who drags the bar to the end.
fn scroll(page: &mut Page, what: &str) {
    let go = |tab: &mut Tab, step: &str| {
        tab.value(&format!(
            "new Promise(done => {{ let left = {FRAMES}; const step = {step}; \
             const go = () => {{ scrollBy(0, step); left -= 1; if (left) requestAnimationFrame(go); else done(); }}; go(); }})"
        ));
    };
    page.tab.value("scrollTo(0, 0)");
    page.scene(Kind::Wheel, &format!("{what}: the wheel"), |tab| go(tab, &WHEEL.to_string()));
    page.tab.value("scrollTo(0, 0)");
    page.scene(Kind::Drag, &format!("{what}: dragging the bar"), |tab| {
        go(tab, "document.documentElement.scrollHeight / left");
    });
    page.tab.value("scrollTo(0, 0)");
}

/// What happens in a scene. The first of each kind is the plain page's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Something is shown.
    Show,
    /// The wheel is turned.
    Wheel,
    /// The bar is dragged.
    Drag,
    /// Nothing is done by anybody.
    Rest,
}

/// A tab whose scenes are measured.
struct Page {
    tab: Tab,
    /// Milliseconds for which the plain page kept its thread busy.
    plain: BTreeMap<Kind, f64>,
}

impl Page {
    /// Leaves the page alone.
    fn rest(&mut self, what: &str, seconds: u8) {
        self.scene(Kind::Rest, &format!("{what}: for {seconds} s"), |tab| {
            tab.value(&format!("new Promise(done => setTimeout(done, {}))", u32::from(seconds) * 1000));
        });
    }

    /// Plays a scene until it is painted, and prints what it took.
    fn scene(&mut self, kind: Kind, what: &str, play: impl FnOnce(&mut Tab)) {
        let tab = &mut self.tab;
        tab.value("measured.tasks = [], measured.frames = [], undefined");
        let (before, begun) = (Work::of(tab), now());
        play(tab);
        tab.value(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => undefined)",
        );
        let (after, wall) = (Work::of(tab), begun.elapsed());
        let [busy, script, layout] =
            [after.busy - before.busy, after.script - before.script, after.layout - before.layout];
        let slow = |tab: &mut Tab, kind: &str| {
            let times = tab.value(&format!("measured.{kind}.filter(time => time > 50)"));
            let times: Vec<f64> = times.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let worst = times.iter().copied().max_by(f64::total_cmp);
            (times.len(), worst.map_or_else(|| "-".to_owned(), |worst| format!("{worst:.0}")))
        };
        let (tasks, frames) = (slow(tab, "tasks"), slow(tab, "frames"));
        let ratio = busy / *self.plain.entry(kind).or_insert(busy);
        print!("{what:<46}{:>7.0}{busy:>7.0}{script:>8.0}{layout:>8.0}{ratio:>9.2}", milliseconds(wall));
        println!("{:>10}{:>7}{:>11}{:>7}", tasks.0, tasks.1, frames.0, frames.1);
    }
}

/// What the page's thread has done since it began, in milliseconds.
struct Work {
    busy: f64,
    script: f64,
    layout: f64,
}

impl Work {
    fn of(tab: &mut Tab) -> Self {
        let told = tab.call("Performance.getMetrics", json!({}));
        let milliseconds = |name: &str| {
            let metrics = told["metrics"].as_array().into_iter().flatten();
            let found = metrics.filter(|metric| metric["name"] == name).find_map(|metric| metric["value"].as_f64());
            found.unwrap_or_default() * 1e3
        };
        Self {
            busy: milliseconds("TaskDuration"),
            script: milliseconds("ScriptDuration"),
            layout: milliseconds("LayoutDuration") + milliseconds("RecalcStyleDuration"),
        }
    }
}

/// 1,000, as the page writes it.
fn thousands(number: u16) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

/// The address of a leaf's page, with the token.
fn address(data: &Path) -> Result<String> {
    let handoff: Value = serde_json::from_slice(&fs::read(data.join("api.json"))?)?;
    let text = |name: &str| handoff[name].as_str().with_context(|| format!("api.json has no {name}"));
    Ok(format!("{}/#token={}", text("url")?, text("token")?))
}

/// Files whose bytes cannot be guessed, so that none is like another.
fn make_slow(folder: &Path, files: u16) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut bytes = vec![0; SLOW_BYTES];
    for file in 0..files {
        blake3::Hasher::new().update(&file.to_le_bytes()).finalize_xof().fill(&mut bytes);
        fs::write(folder.join(format!("{file:04} slow.bin")), &bytes)?;
    }
    Ok(())
}
