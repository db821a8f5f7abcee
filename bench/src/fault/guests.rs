//! Guests that want to be relayed to whom they were not introduced, or want nothing.

use anyhow::Result;
use futures_util::future::join_all;
use overlay::{
    limits,
    transport::{Connection, DialError, Endpoint, Greeting, ReceiveError},
    wire::{
        bounded::Blob,
        hello::Situation,
        leaf::{Carried, LeafMessage, Ping, RelayOpen, RelayReady},
    },
};

use super::{
    Outcome, Report,
    node::{anywhere, fresh, settings},
    raw::Victim,
};

impl Victim<'_> {
    /// One with a made-up token; one that says what guests do not; one that carries without being joined; and as many as
    /// fit, and one more, that say nothing.
    pub(super) async fn guests(&self, report: &mut Report) -> Result<()> {
        let identity = fresh()?;
        let endpoint = Endpoint::dial_only(anywhere().ip(), &identity, settings(self.network))?;
        let made_up: LeafMessage = RelayOpen { token: 1, peer: fresh()?.peer_id() }.into();
        let packet: LeafMessage = Carried { packet: Blob::new(vec![7; 9]).unwrap_or_default() }.into();
        for (what, message) in [
            ("a guest with a made-up token", made_up),
            ("a guest that says something else", Ping { token: 1 }.into()),
            ("a guest that carries at once", packet),
        ] {
            let outcome = match self.enter(&endpoint).await {
                Ok(connection) => self.say(&connection, &message, report).await?,
                Err(error) => Outcome::Refused(error),
            };
            report.outcome(what, outcome);
        }
        let silent = join_all((0..=limits::RELAY_GUESTS).map(|_| self.enter(&endpoint))).await;
        let held: Vec<_> = silent.into_iter().filter_map(Result::ok).collect();
        report.sent += held.len() as u64;
        if let Some(last) = held.last() {
            let outcome = tokio::select! {
                reason = last.closed() => Outcome::Closed(reason),
                () = self.until.cancelled() => Outcome::Kept,
            };
            report.outcome("guests that say nothing", outcome);
        }
        Ok(())
    }

    async fn enter(&self, endpoint: &Endpoint) -> Result<Connection, DialError> {
        let greeting = Greeting { situation: Situation::Guest, ..Greeting::default() };
        Ok(endpoint.dial::<LeafMessage>(self.address, None, greeting).await?.link.connection)
    }

    async fn say(&self, connection: &Connection, message: &LeafMessage, report: &mut Report) -> Result<Outcome> {
        let (mut sender, mut receiver) = connection.open::<LeafMessage>().await?;
        report.sent += u64::from(sender.send(message).await.is_ok());
        Ok(tokio::select! {
            answer = receiver.next() => match answer {
                Ok(Some(LeafMessage::RelayReady(RelayReady { refused: Some(_) }))) => {
                    *report.heard.entry("RelayReady").or_default() += 1;
                    Outcome::Closed(connection.closed().await)
                }
                Err(ReceiveError::Closed(reason)) => Outcome::Closed(reason),
                Ok(None) | Err(_) => Outcome::Closed(connection.closed().await),
                Ok(Some(_)) => Outcome::Kept,
            },
            () = self.until.cancelled() => Outcome::Kept,
        })
    }
}
