//! How a page looks: to people, and to assistive technology.

use std::{fs, path::Path};

use data_encoding::BASE64;
use serde_json::json;

use crate::{browser::Tab, support::text};

impl Tab {
    /// Saves what is seen, if the tests are told where to.
    pub(crate) fn photograph(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("QUICTRACK_SCREENSHOTS") else { return };
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        fs::create_dir_all(&folder).unwrap();
        let bytes = BASE64.decode(text(&shot["data"]).as_bytes()).unwrap();
        fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }

    /// What axe-core finds wrong with the page as it is.
    pub(crate) fn barriers(&mut self) -> Vec<String> {
        if self.value("typeof axe") == "undefined" {
            self.call("Runtime.evaluate", json!({ "expression": include_str!("vendor/axe.min.js") }));
        }
        let found = self.value(
            "axe.run().then(result => result.violations.map(found => found.id + ': ' + found.nodes.map(node => node.html + ' ' + node.any.map(check => check.message)).join('; ')))",
        );
        found.as_array().unwrap().iter().map(|found| text(found).to_owned()).collect()
    }
}
