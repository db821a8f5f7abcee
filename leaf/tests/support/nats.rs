//! A small Internet of network namespaces: hosts with addresses of their own, and hosts behind NATs of all kinds.
//!
//! ```text
//!   this namespace: a bridge, 198.51.0.0/16
//!     ├─ host                          198.51.N.1
//!     └─ nat-N  198.51.N.1 | 192.168.N.1 ─ bridge ─ hosts 192.168.N.2, 192.168.N.3 ..
//!          a second NAT: 198.51.N.1 | 10.N.0.1 ─ 10.N.0.2 | 192.168.N.1
//! ```
//!
//! To be built inside of namespaces of its own (`--net --mount`), with which all of it goes. What most routers drop is
//! dropped: without that ([`Nat::Unguarded`]), a packet from outside that comes first takes the port away from the host
//! behind it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What is in front of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Keeps the port, and lets in what comes to it from anywhere.
    FullCone,
    /// Keeps the port, and lets in only who was sent something.
    Restricted,
    /// The same, until somebody behind it asks it to forward a port, by PCP, NAT-PMP or UPnP ([`forwards`]).
    Asked,
    /// The same behind another one of the kind, as of a provider.
    Double,
    /// [`Self::Restricted`] that loses one packet in twenty in each direction.
    Lossy,
    /// Keeps the port, and lets in only who was sent something; but what comes before takes the port away.
    Unguarded,
    /// Another port towards each, and lets in only who was sent something.
    Symmetric,
}

/// The port on which every node listens.
pub(crate) const PORT: u16 = 7780;

/// Makes the public network. To be called once.
pub(crate) fn build() {
    // Names of namespaces are files there, and must not be seen elsewhere.
    run("mount -t tmpfs nats /run && mkdir /run/netns");
    run("ip link set lo up && ip link add internet type bridge && ip link set internet up");
}

/// The public address with that number.
pub(crate) fn address(number: u8) -> String {
    format!("198.51.{number}.1")
}

/// A host on the public network.
pub(crate) fn public(name: &str, number: u8) {
    namespace(name);
    join(name, "net0", &format!("{}/16", address(number)), "internet", None);
}

/// A NAT, behind which [`host`]s can be.
pub(crate) fn nat(number: u8, kind: Nat) {
    let inner = format!("nat-{number}");
    namespace(&inner);
    if kind == Nat::Double {
        let outer = format!("nat-{number}-outer");
        namespace(&outer);
        join(&outer, "wan", &format!("{}/16", address(number)), "internet", None);
        lan(&outer, &format!("10.{number}.0.1/24"));
        join(&inner, "wan", &format!("10.{number}.0.2/24"), "lan", Some(&outer));
        run(&format!("ip -n {inner} route add default via 10.{number}.0.1"));
        rules(&outer, kind, number);
    } else {
        join(&inner, "wan", &format!("{}/16", address(number)), "internet", None);
    }
    lan(&inner, &format!("192.168.{number}.1/24"));
    rules(&inner, kind, number);
}

/// A host behind a NAT, whose last number is at least 2. A [`Nat::FullCone`] lets others in to the first.
pub(crate) fn host(name: &str, nat: u8, number: u8) {
    namespace(name);
    join(name, "net0", &format!("192.168.{nat}.{number}/24"), "lan", Some(&format!("nat-{nat}")));
    run(&format!("ip -n {name} route add default via 192.168.{nat}.1"));
}

/// From now on nothing passes between what is behind a NAT and a public address; or it does again.
pub(crate) fn cut(nat: u8, other: u8, cut: bool) {
    let other = address(other);
    let rules = if cut {
        format!(
            "table ip cut {{\nchain forward {{\ntype filter hook forward priority -10;\nip saddr {other} drop\n\
             ip daddr {other} drop\n}}\n}}\n"
        )
    } else {
        "delete table ip cut\n".to_owned()
    };
    run(&format!("ip netns exec nat-{nat} nft -f - <<'RULES'\n{rules}RULES"));
}

/// From now on nothing that comes from outside first gets into a NAT, whatever it says that it forwards.
pub(crate) fn deafen(nat: u8) {
    let rules = "table ip deaf {\nchain prerouting {\ntype filter hook prerouting priority -150;\n\
                 iifname wan ct state new drop\n}\n}\n";
    run(&format!("ip netns exec nat-{nat} nft -f - <<'RULES'\n{rules}RULES"));
}

/// A real program that forwards ports on a NAT of kind [`Nat::Asked`]; ends with the value.
pub(crate) struct Forwarder {
    nat: u8,
    child: Child,
    log: PathBuf,
    pcp: bool,
    upnp: bool,
}

/// Starts it, with the protocols that are switched on. Its files lie in `folder`.
pub(crate) fn forwards(nat: u8, folder: &Path, pcp: bool, upnp: bool) -> Forwarder {
    let chain = |kind, hook, priority| {
        format!("chain {hook} {{\ntype {kind} hook {hook} priority {priority};\njump asked_{hook}\n}}\n")
    };
    let chains = ["forward", "prerouting", "postrouting"].map(|hook| format!("chain asked_{hook} {{\n}}\n")).concat();
    let hooks = chain("filter", "forward", 0) + &chain("nat", "prerouting", -100) + &chain("nat", "postrouting", 100);
    run(&format!("ip netns exec nat-{nat} nft -f - <<'RULES'\ntable inet asked {{\n{chains}{hooks}}}\nRULES"));
    let switch = |on| if on { "yes" } else { "no" };
    let configuration = format!(
        "ext_ifname=wan\nlistening_ip=lan\nport=0\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\n\
         upnp_table_name=asked\nupnp_nat_table_name=asked\nupnp_forward_chain=asked_forward\n\
         upnp_nat_chain=asked_prerouting\nupnp_nat_postrouting_chain=asked_postrouting\n\
         uuid=00000000-0000-4000-8000-0000000000{nat}\nallow 1024-65535 192.168.{nat}.0/24 1024-65535\n",
        switch(pcp),
        switch(upnp),
    );
    let file = folder.join(format!("miniupnpd-{nat}.conf"));
    std::fs::write(&file, configuration).expect("a folder of the test can be written to");
    let log = folder.join(format!("miniupnpd-{nat}.log"));
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/usr/sbin");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", fetched.display());
    let name = format!("nat-{nat}");
    let [ip, words @ ..] = inside(&name);
    let child = Command::new(ip)
        .args(words)
        .args(["miniupnpd", "-d", "-f"])
        .arg(&file)
        // It removes that file when it ends.
        .arg("-P")
        .arg(folder.join(format!("miniupnpd-{nat}.pid")))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("as above"))
        .spawn()
        .expect("`ip` comes with iproute2");
    Forwarder { nat, child, log, pcp, upnp }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

impl Forwarder {
    /// True once it can be asked. Whoever asks before is refused, and asks again much later.
    pub(crate) fn listens(&mut self) -> bool {
        let ended = self.child.try_wait().expect("it is a child");
        assert!(ended.is_none(), "`miniupnpd` ended; `.ci/test` fetches it if it is missing: {}", read(&self.log));
        let sockets = read(Path::new(&format!("/proc/{}/net/udp", self.child.id())));
        let listens = |port: u16| sockets.contains(&format!(":{port:04X} 00000000:0000"));
        (!self.pcp || listens(5351)) && (!self.upnp || listens(1900))
    }

    /// What it forwards, as the system says.
    pub(crate) fn rules(&self) -> String {
        let list = format!("ip netns exec nat-{} nft list chain inet asked asked_prerouting", self.nat);
        let output = Command::new("sh").args(["-ec", &list]).output().expect("every system has `sh`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words before a command that runs it in a namespace.
pub(crate) fn inside(name: &str) -> [&str; 4] {
    ["/usr/sbin/ip", "netns", "exec", name]
}

fn namespace(name: &str) {
    run(&format!("ip netns add {name} && ip -n {name} link set lo up"));
}

/// A cable from a namespace to a bridge, which is in another one or in this.
fn join(name: &str, device: &str, address: &str, bridge: &str, at: Option<&str>) {
    // Names of devices are short, and each is there once.
    let (plug, at) = (format!("{name}-{device}"), at.map(|at| format!("-n {at}")).unwrap_or_default());
    let plug = &plug[plug.len().saturating_sub(15)..];
    run(&format!("ip {at} link add {plug} type veth peer name {device} netns {name}"));
    run(&format!("ip {at} link set {plug} master {bridge} up"));
    run(&format!("ip -n {name} address add {address} dev {device} && ip -n {name} link set {device} up"));
}

fn lan(nat: &str, address: &str) {
    run(&format!("ip -n {nat} link add lan type bridge && ip -n {nat} address add {address} dev lan"));
    run(&format!("ip -n {nat} link set lan up && ip netns exec {nat} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"));
}

fn rules(nat: &str, kind: Nat, number: u8) {
    let random = if kind == Nat::Symmetric { " random,fully-random" } else { "" };
    let (open, forward) = match kind {
        Nat::FullCone => (
            format!("iifname wan udp dport {PORT} dnat to 192.168.{number}.2:{PORT}\n"),
            "ct status dnat accept\niifname wan ct state new drop\n",
        ),
        Nat::Asked => (String::new(), "ct status dnat accept\niifname wan ct state new drop\n"),
        _ => (String::new(), "iifname wan ct state new drop\n"),
    };
    let guard = if kind == Nat::Unguarded { "" } else { "iifname wan ct state new drop\n" };
    let lossy = if kind == Nat::Lossy { "meta l4proto udp numgen random mod 100 < 5 drop\n" } else { "" };
    let rules = format!(
        "table ip nat {{\nchain before {{\ntype nat hook prerouting priority -100;\n{open}}}\n\
         chain after {{\ntype nat hook postrouting priority 100;\noifname wan masquerade{random}\n}}\n}}\n\
         table ip filter {{\nchain input {{\ntype filter hook input priority 0;\n{guard}}}\n\
         chain forward {{\ntype filter hook forward priority 0;\n{lossy}{forward}}}\n}}\n"
    );
    run(&format!("ip netns exec {nat} nft -f - <<'RULES'\n{rules}RULES"));
}

fn run(script: &str) {
    // Both are tools of administrators, which others do not have at hand.
    let script = format!("PATH=$PATH:/usr/sbin:/sbin\n{script}");
    let output = Command::new("sh").args(["-ec", &script]).output().expect("every system has `sh`");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}\nhint: `ip` comes with iproute2, `nft` with nftables");
}
