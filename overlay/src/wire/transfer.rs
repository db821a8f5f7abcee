//! Messages between leaves.

use super::{
    hello::{Goodbye, HELLO_CAP, Hello, REFUSE_CAP, Refuse, Welcome},
    messages,
};

messages! {
    /// What leaves say to each other.
    pub enum TransferMessage {
        /// The first frame of the side that dialled.
        1 Hello(Hello) up to HELLO_CAP,
        /// It is let in.
        2 Welcome(Welcome) up to HELLO_CAP,
        /// It is not.
        3 Refuse(Refuse) up to REFUSE_CAP,
        /// The sender leaves in order.
        4 Goodbye(Goodbye) up to REFUSE_CAP,
    }
}
