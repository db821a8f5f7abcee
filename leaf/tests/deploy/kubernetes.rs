//! The manifests for Kubernetes: put together by kustomize, judged by the schemas of Kubernetes, and by what the program needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use overlay::{
    config::{Config, Program},
    environment::Environment,
    limits,
};
use serde_json::Value;

use crate::{
    deploy,
    support::{list, number, text},
    tool, yaml,
};

/// The ways in which they are put together.
const WAYS: [&str; 4] = ["base", "overlays/hostnetwork", "overlays/loadbalancer", "overlays/monitoring"];
/// What the label says that leads to the pods.
const NAME: &str = "app.kubernetes.io/name";

/// All objects of one way.
struct Objects(Vec<Value>);

impl Objects {
    fn of(way: &str) -> Self {
        let rendered = tool("kubectl", &["kustomize", deploy("kubernetes").join(way).to_str().unwrap()]);
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(file.path(), &rendered).unwrap();
        let path = file.path().to_str().unwrap();
        let said = tool("kubernetes-validate", &["--strict", path]);
        let objects = yaml(file.path());
        // Of what is no part of Kubernetes it only says that it does not know it.
        let unknown: Vec<_> = said.lines().filter(|line| !line.contains(" passed for resource ")).collect();
        let own = objects.iter().filter(|object| object["kind"] == "PodMonitor").count();
        assert_eq!(unknown.len(), own, "{way}: {said}");
        Self(objects)
    }

    fn all<'a>(&'a self, kind: &'static str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    fn one(&self, kind: &'static str) -> &Value {
        let found: Vec<_> = self.all(kind).collect();
        assert_eq!(found.len(), 1, "{kind}");
        found[0]
    }

    fn pod(&self) -> &Value {
        &self.one("StatefulSet")["spec"]["template"]
    }

    fn container(&self) -> &Value {
        &list(&self.pod()["spec"]["containers"])[0]
    }
}

#[test]
fn manifests_fit_kubernetes_and_each_other() {
    for way in WAYS {
        let objects = Objects::of(way);
        let (set, pod, container) = (objects.one("StatefulSet"), objects.pod(), objects.container());
        let labels = &pod["metadata"]["labels"];
        let ports: BTreeMap<_, _> = list(&container["ports"])
            .iter()
            .map(|port| (text(&port["name"]), (number(&port["containerPort"]), text(&port["protocol"]))))
            .collect();
        assert_eq!(ports, BTreeMap::from([("metrics", (7781, "TCP")), ("quic", (7780, "UDP"))]), "{way}");

        // Whatever leads to pods leads to these, and to ports that they have.
        let heads = objects.all("Service").filter(|service| service["spec"]["clusterIP"] == "None");
        let heads: Vec<_> =
            heads.map(|service| (&service["metadata"]["name"], &service["spec"]["selector"][NAME])).collect();
        assert_eq!(heads, [(&set["spec"]["serviceName"], &labels[NAME])], "{way}");
        for service in objects.all("Service") {
            for port in list(&service["spec"]["ports"]) {
                let (number_of, protocol) = ports[text(&port["targetPort"])];
                assert_eq!((number(&port["port"]), text(&port["protocol"])), (number_of, protocol), "{way}");
            }
        }
        for selector in [
            &set["spec"]["selector"],
            &objects.one("PodDisruptionBudget")["spec"]["selector"],
            &objects.one("NetworkPolicy")["spec"]["podSelector"],
        ] {
            assert_eq!(selector["matchLabels"][NAME], labels[NAME], "{way}");
        }
        for rule in list(&objects.one("NetworkPolicy")["spec"]["ingress"]) {
            for port in list(&rule["ports"]) {
                assert_eq!(text(&port["protocol"]), ports[text(&port["port"])].1, "{way}");
            }
        }

        // It restarts only what does not work, and sends nobody to what is not in the network.
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let get = &container[probe]["httpGet"];
            assert_eq!((text(&get["path"]), text(&get["port"])), (path, "metrics"), "{way}: {probe}");
        }
        let grace = Duration::from_secs(number(&pod["spec"]["terminationGracePeriodSeconds"]));
        assert!(grace > limits::DRAIN_TIMEOUT + 2 * limits::CLOSE_TIMEOUT, "{way}: {grace:?}");

        let security = &container["securityContext"];
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true, "{way}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{way}");
        assert_eq!(security["capabilities"]["drop"][0], "ALL", "{way}");
    }
}

#[test]
fn configurations_of_pods_are_accepted_and_lead_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    for way in WAYS {
        let objects = Objects::of(way);
        let files = objects.one("ConfigMap")["data"].as_object().unwrap();
        let service = text(&objects.one("StatefulSet")["spec"]["serviceName"]);
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::write(&path, text(content)).unwrap();
            Config::check_file(Program::Ultrapeer, &path, &Environment::default()).unwrap();
            assert!(text(content).contains(&format!("dns = [\"{service}\"]")), "{way}: {name}");
        }
        // Each pod finds the file that its arguments name.
        let replicas = number(&objects.one("StatefulSet")["spec"]["replicas"]);
        let argument = list(&objects.container()["args"]).iter().find_map(|word| text(word).strip_prefix("--config="));
        for pod in 0..replicas {
            let file = argument.unwrap().replace("$(POD_NAME)", &format!("{service}-{pod}"));
            let file = file.strip_prefix("/etc/quictrack/").unwrap();
            assert!(files.contains_key(file), "{way}: there is no {file}");
        }
        // The variables that it sets are its own.
        for variable in list(objects.container().get("env").unwrap_or(&Value::Array(Vec::new()))) {
            let known = ["HOST_IP", "POD_NAME", "QUICTRACK_ADVERTISE", "QUICTRACK_METRICS"];
            assert!(known.contains(&text(&variable["name"])), "{way}: {variable}");
        }
    }
}

#[test]
fn with_load_balancers_each_pod_has_one_and_an_address_of_its_own() {
    let objects = Objects::of("overlays/loadbalancer");
    let set = objects.one("StatefulSet");
    let name = text(&set["metadata"]["name"]);
    let pods: BTreeSet<_> = (0..number(&set["spec"]["replicas"])).map(|pod| format!("{name}-{pod}")).collect();
    let balanced = objects.all("Service").filter(|service| service["spec"]["type"] == "LoadBalancer");
    let led: BTreeSet<_> = balanced
        .map(|service| {
            assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
            text(&service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"]).to_owned()
        })
        .collect();
    assert_eq!(led, pods);
    let files = objects.one("ConfigMap")["data"].as_object().unwrap();
    let advertised: BTreeSet<_> =
        files.values().filter_map(|file| text(file).lines().find(|line| line.starts_with("advertise = "))).collect();
    assert_eq!(advertised.len(), pods.len());
}

#[test]
fn the_operator_of_prometheus_finds_the_pods() {
    let objects = Objects::of("overlays/monitoring");
    let (monitor, labels) = (objects.one("PodMonitor"), &objects.pod()["metadata"]["labels"]);
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"][NAME], labels[NAME]);
    // Rules and dashboards expect this job.
    assert_eq!(labels[text(&monitor["spec"]["jobLabel"])], "quictrack-ultrapeer");
    let endpoint = &list(&monitor["spec"]["podMetricsEndpoints"])[0];
    assert_eq!((text(&endpoint["port"]), text(&endpoint["path"])), ("metrics", "/metrics"));
    let known: BTreeSet<_> = ["jobLabel", "selector", "podMetricsEndpoints"].into();
    assert!(monitor["spec"].as_object().unwrap().keys().all(|key| known.contains(key.as_str())));
}
