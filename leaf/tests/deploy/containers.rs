//! The image and the fleet by compose, as far as they can be judged without running containers. `deploy/container/drill` runs them.

use std::{collections::BTreeSet, path::Path, time::Duration};

use overlay::limits;
use serde_json::Value;

use crate::{
    deploy,
    support::{Bed, Program, list, text},
    text_of, tool, yaml,
};

/// Every script of the repository that is not Rust.
const SCRIPTS: [&str; 9] = [
    "../.ci/run",
    "../.ci/test",
    "container/build",
    "container/drill",
    "systemd/drill",
    "debian/build",
    "debian/postinst",
    "debian/postrm",
    "debian/prerm",
];

fn compose() -> Value {
    yaml(&deploy("container/compose.yaml")).remove(0)
}

#[test]
fn scripts_and_the_image_have_no_known_mistake() {
    tool("shellcheck", &[&["--severity=warning"], &SCRIPTS[..]].concat());
    tool("hadolint", &["container/Containerfile"]);
    let image = text_of("container/Containerfile");
    for line in ["FROM scratch", "USER 65532:65532"] {
        assert!(image.lines().any(|have| have == line), "no {line}");
    }
}

#[test]
fn the_fleet_fits_its_form_and_what_it_names_is_there() {
    tool("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", "container/compose.yaml"]);
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let volumes: BTreeSet<_> = compose["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    for (name, service) in services {
        for volume in list(&service["volumes"]) {
            let source = text(volume).split(':').next().unwrap();
            let is_there = volumes.contains(source) || deploy("container").join(source).exists();
            assert!(is_there, "{name}: there is no {source}");
        }
        for port in service.get("ports").map(list).unwrap_or_default() {
            assert!(text(port).starts_with("127.0.0.1:"), "{name} opens {port} to everybody");
        }
    }
    let targets = text_of("prometheus/prometheus-compose.yml");
    let nodes: Vec<_> = services.iter().filter(|(_, service)| service["image"] == "quictrack:0.1.0").collect();
    assert_eq!(nodes.len(), 4);
    for (name, node) in nodes {
        assert!(targets.contains(&format!("\"{name}:7781\"")), "nobody watches {name}");
        let grace = text(&node["stop_grace_period"]).trim_end_matches('s').parse().unwrap();
        assert!(Duration::from_secs(grace) > limits::DRAIN_TIMEOUT + 2 * limits::CLOSE_TIMEOUT, "{name}");
        assert_eq!((&node["read_only"], &node["cap_drop"][0]), (&true.into(), &"ALL".into()), "{name}");
    }
    // Where Grafana looks for dashboards is where they are mounted.
    let mounts: Vec<_> = list(&services["grafana"]["volumes"]).iter().map(text).collect();
    let provider = text_of("grafana/provisioning/dashboards/quictrack.yml");
    let path = provider.lines().find_map(|line| line.trim().strip_prefix("path: ")).unwrap();
    assert!(mounts.contains(&&*format!("../grafana/dashboards:{path}:ro")), "{mounts:?}");
    let source = text_of("grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains("url: http://prometheus:9090") && services.contains_key("prometheus"));
}

#[test]
fn programs_accept_what_the_fleet_tells_them() {
    let (bed, compose) = (Bed::new(), compose());
    for (name, service) in compose["services"].as_object().unwrap() {
        if service["image"] != "quictrack:0.1.0" {
            continue;
        }
        let words: Vec<_> = list(&service["command"]).iter().map(text).collect();
        let program = if words[0] == "quictrack" { Program::Leaf } else { Program::Ultrapeer };
        let mut command = program.command(None, &bed.path(name), &["config", "show", "--origin", "--json"]);
        let environment = service["environment"].as_object().unwrap();
        command.envs(environment.iter().map(|(key, value)| (key, text(value))));
        let output = command.output().unwrap();
        let (shown, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        let from_environment = shown.lines().filter(|line| line.contains("\"origin\":\"environment\"")).count();
        assert_eq!(from_environment, environment.len(), "{name}: {shown}");
        let check = text(&list(&service["healthcheck"]["test"])[1]);
        assert_eq!(Path::new(check), program.path().file_name().unwrap(), "{name} asks another program");
    }
}
