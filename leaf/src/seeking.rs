//! How others are looked for on behalf of a leaf: what `overlay::discovery` finds is tried by the ultrapeer in this process
//! while there is one, and otherwise by the leaf.

use std::net::SocketAddr;

use futures_util::future::{BoxFuture, ready};
use overlay::{
    address::JoinAddress,
    discovery::{Hint, Site, Standing},
    limits,
    metrics::BootstrapResult,
};

use crate::node::Node;

impl Site for Node {
    fn standing(&self) -> BoxFuture<'_, Standing> {
        Box::pin(async {
            match self.role().service() {
                Some(service) => service.standing().await,
                None => Standing { good: self.network().homes().len(), wanted: limits::GOOD_ULTRAPEERS },
            }
        })
    }

    fn use_names(&self, names: Vec<JoinAddress>) {
        self.role().set_names(names.clone());
        self.network().set_names(names);
    }

    fn dial(&self, hint: Hint) -> BoxFuture<'_, BootstrapResult> {
        Box::pin(async move {
            match self.role().service() {
                Some(service) => service.try_hint(hint).await,
                None => self.network().try_hint(hint).await,
            }
        })
    }

    fn serves_at(&self) -> BoxFuture<'_, Option<SocketAddr>> {
        Box::pin(ready(self.role().service().and_then(|service| service.serves_at())))
    }
}
