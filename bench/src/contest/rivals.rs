//! The programs of others: how each is started, to serve and to fetch.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Contender, Kind, Mesh, run, serving::Server};
use crate::bare::now;

/// One end of a transfer by libtorrent, for Python.
const TORRENT: &str = include_str!("torrent.py");
/// Time for a server that says nothing to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Contender {
    /// `curl` from `nginx` by TLS 1.3 with AES-128. Encrypted; nothing is verified.
    pub fn curl(nginx: &Path, curl: PathBuf, file: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            "/CN=localhost",
        ]);
        run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate)).context("openssl makes the certificate")?;
        let port = free_port()?;
        let root = file.parent().context("a file lies in a folder")?;
        let own = folder.display();
        // One process, so that nobody is left when it is killed.
        let configuration = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {own}/pid;\nerror_log {own}/error.log;\nevents {{}}\n\
             http {{ access_log off; sendfile on; client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; \
             fastcgi_temp_path {own}/fastcgi; uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};\n\
             ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; root {}; }} }}\n",
            certificate.display(),
            key.display(),
            root.display(),
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, configuration)?;
        let server = Server::start(Command::new(nginx).arg("-c").arg(&path))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let begun = now();
        while TcpStream::connect(address).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "nginx does not answer; see {own}/error.log");
            thread::park_timeout(Duration::from_millis(10));
        }
        Self::new(folder, vec![server], Kind::Curl { program: curl, address: address.to_string() })
    }

    /// `sendme`, which serves and verifies by iroh; without relays.
    pub fn sendme(program: PathBuf, file: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut command = Command::new(&program);
        command.current_dir(folder).args(["send", "--no-progress", "--relay", "disabled"]).arg(file);
        let mut server = Server::start(&mut command)?;
        let ticket = server.line_after("sendme receive ")?;
        Self::new(folder, vec![server], Kind::Sendme { program, ticket })
    }

    /// `rqbit`, a BitTorrent client, with nobody to ask but the nodes that take part. Not encrypted, checked by SHA-1.
    pub fn rqbit(program: PathBuf, file: &Path, folder: &Path, mesh: Mesh) -> Result<Self> {
        let (mut servers, mut sources, mut magnet) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..mesh.sources {
            let port = free_port()?;
            let mut command = rqbit(&program, port);
            let mut server = Server::start(command.args(["--http-api-listen-addr", "127.0.0.1:0", "share"]).arg(file))?;
            magnet = server.line_after("share this magnet link: ")?;
            servers.push(server);
            sources.push(port);
        }
        Self::new(folder, servers, Kind::Rqbit { program, magnet, sources, sinks: mesh.sinks })
    }

    /// `libtorrent`, the library of many BitTorrent clients, in the same way.
    pub fn libtorrent(python: PathBuf, file: &Path, folder: &Path, mesh: Mesh) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (mut servers, mut sources) = (Vec::new(), Vec::new());
        let torrent = folder.join("torrent");
        for _ in 0..mesh.sources {
            let port = free_port()?;
            let mut command = libtorrent(&python);
            let mut server = Server::start(command.arg("send").arg(file).arg(&torrent).arg(port.to_string()))?;
            server.line_after("ready")?;
            servers.push(server);
            sources.push(port);
        }
        Self::new(folder, servers, Kind::Libtorrent { python, torrent, sources, sinks: mesh.sinks })
    }
}

/// A Python that has libtorrent, of these.
///
/// # Errors
/// None has it.
pub fn python_with_libtorrent(mut candidates: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    let has = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import libtorrent"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    candidates.find(has).context("not found; Debian's package python3-libtorrent has it, or `pip install libtorrent`")
}

/// What fetches from nginx.
pub(super) fn curl_fetch(program: &Path, address: &str, name: &str, copy: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([
        "--disable",
        "--silent",
        "--show-error",
        "--fail",
        "--insecure",
        "--http1.1",
        "--noproxy",
        "*",
        "-o",
    ]);
    command.arg(copy).arg(format!("https://{address}/{name}"));
    command
}

/// What fetches by a ticket of sendme.
pub(super) fn sendme_fetch(program: &Path, ticket: &str, target: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(target).args(["receive", "--no-progress", "--relay", "disabled", ticket]);
    command
}

/// What fetches by BitTorrent, with rqbit: each knows the sources and all others that fetch.
pub(super) fn rqbit_fetches(
    program: &Path,
    magnet: &str,
    sources: &[u16],
    targets: &[PathBuf],
) -> Result<Vec<Command>> {
    fetches(sources, targets, |own, peers, target| {
        let peers: Vec<String> = peers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = rqbit(program, own);
        command.args(["download", "--disable-http-api", "-e", "--initial-peers", &peers.join(","), "-o"]);
        command.arg(target).arg(magnet);
        command
    })
}

/// The same with libtorrent.
pub(super) fn libtorrent_fetches(
    python: &Path,
    torrent: &Path,
    sources: &[u16],
    targets: &[PathBuf],
) -> Result<Vec<Command>> {
    fetches(sources, targets, |own, peers, target| {
        let mut command = libtorrent(python);
        command.arg("receive").arg(target).arg(torrent).arg(own.to_string());
        command.args(peers.iter().map(u16::to_string));
        command
    })
}

/// One command for each target, made of its own port, the ports of all others, and the target.
fn fetches(sources: &[u16], targets: &[PathBuf], make: impl Fn(u16, &[u16], &Path) -> Command) -> Result<Vec<Command>> {
    let ports = free_ports(targets.len())?;
    let fetch = |(own, target): (&u16, &PathBuf)| {
        let others = ports.iter().filter(|port| *port != own);
        let peers: Vec<u16> = sources.iter().chain(others).copied().collect();
        make(*own, &peers, target)
    };
    Ok(ports.iter().zip(targets).map(fetch).collect())
}

/// `rqbit`, which listens on `port` and looks for nobody.
fn rqbit(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["-v", "error", "--disable-dht", "--disable-trackers", "--disable-lsd"]);
    command.args(["--disable-upnp-port-forward", "--listen-ip", "127.0.0.1", "--listen-port", &port.to_string()]);
    command
}

/// A Python that plays one end.
fn libtorrent(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", TORRENT]);
    command
}

/// A TCP port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// As many, no two the same.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
