//! The web page in a real browser, before real daemons on loopback.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of the program use the rest")]
mod support;

#[path = "../support/browser.rs"]
mod browser;
mod carry;
mod changes;
mod demo;
mod hostile;
mod looks;
mod pages;
mod searches;
mod times;

use crate::{
    browser::Tab,
    support::{Daemon, processes, text},
};

/// The address of a leaf's page, with the token.
fn address(leaf: &Daemon) -> String {
    let token = leaf.token();
    format!("{}#token={}", text(&leaf.ready["web"]), token)
}

/// A tab in which a leaf's page is.
fn visit(leaf: &Daemon) -> Tab {
    visit_at(&address(leaf))
}

/// A tab in which the page at an address is.
fn visit_at(address: &str) -> Tab {
    let mut tab = Tab::open();
    tab.go(address);
    tab.until("document.querySelector('form.search')");
    tab
}

/// Types a query and sends it.
fn search(tab: &mut Tab, query: &str) {
    tab.page("search");
    tab.fill("form.search input", query);
    tab.press("Enter");
}
