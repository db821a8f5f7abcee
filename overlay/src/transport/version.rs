//! Which side is older: the one exchange that never changes.
//!
//! When the other side offers no protocol of ours, the dialler connects again under
//! [`VERSION_ALPN`](crate::wire::VERSION_ALPN), opens a stream, and each side sends one line:
//! `quictrack <lowest major> <highest major> <agent>`.

use std::ops::RangeInclusive;

use quinn::ReadToEndError;

use super::connection::CloseCode;
use crate::{limits, wire::Protocol};

/// The first word of the line.
const NAME: &str = "quictrack";

/// What a node says of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    /// Major versions that it speaks.
    pub(super) majors: RangeInclusive<u32>,
    /// Name and version of the program.
    pub(super) agent: String,
}

impl Versions {
    /// The names of `protocol` in all versions, newest first.
    pub(super) fn alpns(&self, protocol: Protocol) -> impl Iterator<Item = Vec<u8>> {
        self.majors.clone().rev().map(move |major| format!("{NAME}/{major} {}", protocol.name()).into_bytes())
    }

    fn line(&self) -> String {
        let agent: String = self.agent.chars().filter(|c| !c.is_control()).take(60).collect();
        format!("{NAME} {} {} {agent}\n", self.majors.start(), self.majors.end())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let mut words = line.splitn(4, ' ');
        (words.next()? == NAME).then_some(())?;
        let (lowest, highest): (u32, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let agent: String = words.next()?.chars().filter(|c| !c.is_control()).collect();
        (lowest <= highest).then_some(Self { majors: lowest..=highest, agent })
    }
}

/// Asks the node at the other end of `connection`; `None` if it does not answer as it should. The caller
/// bounds the time.
pub(super) async fn ask(connection: &quinn::Connection, ours: &Versions) -> Option<Versions> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(ours.line().as_bytes()).await.ok()?;
    send.finish().ok()?;
    let line = receive.read_to_end(limits::VERSION_LINE_BYTES).await.ok()?;
    connection.close(CloseCode::Done.to_wire(), b"");
    Versions::parse(&line)
}

/// Answers [`ask`]. Ends when the dialler closes the connection; the caller bounds the time.
pub(super) async fn answer(connection: &quinn::Connection, ours: &Versions) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    match receive.read_to_end(limits::VERSION_LINE_BYTES).await {
        Ok(_) => {
            // A failure here is the dialler's departure, which `closed` sees too.
            let _ = send.write_all(ours.line().as_bytes()).await;
            let _ = send.finish();
            connection.closed().await;
        }
        Err(ReadToEndError::TooLong | ReadToEndError::Read(_)) => {
            connection.close(CloseCode::Violation.to_wire(), b"");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip_and_strange_ones_are_refused() {
        let ours = Versions { majors: 1..=3, agent: "quictrack/0.1.0".into() };
        assert_eq!(ours.line(), "quictrack 1 3 quictrack/0.1.0\n");
        assert_eq!(Versions::parse(ours.line().as_bytes()), Some(ours));
        for strange in
            ["", "\n", "quictrack 1\n", "quictrack 2 1 x\n", "gnutella 1 1 x\n", "quictrack 1 1 x", "quictrack a 1 x\n"]
        {
            assert_eq!(Versions::parse(strange.as_bytes()), None, "{strange:?}");
        }
    }

    #[test]
    fn the_names_of_this_major_are_those_of_the_protocols() {
        let ours = Versions { majors: crate::wire::MAJOR..=crate::wire::MAJOR, agent: String::new() };
        for protocol in Protocol::ALL {
            assert_eq!(ours.alpns(protocol).collect::<Vec<_>>(), [protocol.alpn().to_vec()]);
        }
    }
}
