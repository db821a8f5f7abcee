//! The tools to declare metrics: label enums, families, tables of families.

use std::{fmt, marker::PhantomData, sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram};

use super::tally::Tally;

/// A label whose values are the variants of an enum; made by [`labels!`](crate::labels).
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
    /// The value in the exposition.
    fn value(self) -> &'static str;
    /// The index in [`Self::ALL`].
    fn position(self) -> usize;
}

/// The labels of a family: `()`, one [`Label`] or a tuple of two or three.
pub trait Labels: Copy + Send + Sync + 'static {
    /// How many combinations exist.
    const COUNT: usize;
    /// The index of this combination, below [`Self::COUNT`].
    fn position(self) -> usize;
    /// Names and values of the combination at an index.
    fn pairs(position: usize) -> Vec<metrics::Label>;
}

impl Labels for () {
    const COUNT: usize = 1;

    fn position(self) -> usize {
        0
    }

    fn pairs(_position: usize) -> Vec<metrics::Label> {
        Vec::new()
    }
}

impl<A: Label> Labels for A {
    const COUNT: usize = A::ALL.len();

    fn position(self) -> usize {
        Label::position(self)
    }

    fn pairs(position: usize) -> Vec<metrics::Label> {
        vec![metrics::Label::from_static_parts(A::NAME, A::ALL[position].value())]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::ALL.len() * B::ALL.len();

    fn position(self) -> usize {
        self.0.position() * B::ALL.len() + self.1.position()
    }

    fn pairs(position: usize) -> Vec<metrics::Label> {
        let (a, b) = (position / B::ALL.len(), position % B::ALL.len());
        [<A as Labels>::pairs(a), <B as Labels>::pairs(b)].concat()
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    const COUNT: usize = A::ALL.len() * B::ALL.len() * C::ALL.len();

    fn position(self) -> usize {
        (self.0, self.1).position() * C::ALL.len() + self.2.position()
    }

    fn pairs(position: usize) -> Vec<metrics::Label> {
        let (ab, c) = (position / C::ALL.len(), position % C::ALL.len());
        [<(A, B)>::pairs(ab), <C as Labels>::pairs(c)].concat()
    }
}

/// A declared family of series, whatever its type.
pub trait Family: Sync {
    /// The full name in the exposition.
    fn name(&self) -> &'static str;
    /// How many series it has; a histogram counts once for each set of labels.
    fn series(&self) -> usize;
    /// The upper bounds of a histogram's buckets.
    fn buckets(&self) -> Option<&'static [f64]> {
        None
    }
    /// Describes it and creates every series at 0. Further calls do nothing.
    fn declare(&self);
    /// Brings the registry up to date with what was counted beside it.
    fn collect(&self) {}
}

/// What the three types of families have in common: one handle for each combination of labels.
struct Handles<H, L> {
    name: &'static str,
    help: &'static str,
    handles: OnceLock<Box<[H]>>,
    labels: PhantomData<fn(L)>,
}

impl<H, L: Labels> Handles<H, L> {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, handles: OnceLock::new(), labels: PhantomData }
    }

    fn create(&self, one: impl Fn(Vec<metrics::Label>) -> H) {
        self.handles.get_or_init(|| (0..L::COUNT).map(|position| one(L::pairs(position))).collect());
    }

    /// `None` before the registry is installed.
    fn get(&self, labels: L) -> Option<&H> {
        self.handles.get()?.get(labels.position())
    }
}

/// Counters: they only rise. Names end in `_total`.
///
/// Threads count beside each other, because one number for all of them costs more than what it counts (measured:
/// bench/src/bin/first_hit.rs); the registry learns of it when it is asked.
pub struct Counters<L> {
    handles: Handles<Counter, L>,
    counts: OnceLock<Tally>,
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.handles.name).finish()
    }
}

impl<L: Labels> Counters<L> {
    /// A family that does nothing until it is declared.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { handles: Handles::new(name, help), counts: OnceLock::new() }
    }

    /// Counts one.
    pub fn increment(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `count`.
    pub fn add(&self, labels: L, count: u64) {
        if let Some(counts) = self.counts.get() {
            counts.add(labels.position(), count);
        }
    }

    /// Takes over a total that is counted elsewhere and only rises. What is counted here as well only shows once it is more.
    pub fn absolute(&self, labels: L, total: u64) {
        if let Some(counter) = self.handles.get(labels) {
            counter.absolute(total);
        }
    }
}

impl<L: Labels> Family for Counters<L> {
    fn name(&self) -> &'static str {
        self.handles.name
    }

    fn series(&self) -> usize {
        L::COUNT
    }

    fn declare(&self) {
        metrics::describe_counter!(self.handles.name, self.handles.help);
        self.handles.create(|labels| metrics::counter!(self.handles.name, labels));
        self.counts.get_or_init(|| Tally::new(L::COUNT));
    }

    fn collect(&self) {
        if let (Some(counters), Some(counts)) = (self.handles.handles.get(), self.counts.get()) {
            counts.tell(counters);
        }
    }
}

/// Gauges: they rise and fall.
pub struct Gauges<L>(Handles<Gauge, L>);

impl<L> fmt::Debug for Gauges<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauges").field(&self.0.name).finish()
    }
}

impl<L: Labels> Gauges<L> {
    /// A family that does nothing until it is declared.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self(Handles::new(name, help))
    }

    /// Sets the value.
    pub fn set(&self, labels: L, value: f64) {
        if let Some(gauge) = self.0.get(labels) {
            gauge.set(value);
        }
    }

    /// Sets 1 or 0.
    pub fn set_flag(&self, labels: L, flag: bool) {
        self.set(labels, f64::from(u8::from(flag)));
    }

    /// Adds one.
    pub fn increment(&self, labels: L) {
        if let Some(gauge) = self.0.get(labels) {
            gauge.increment(1.0);
        }
    }

    /// Takes one away.
    pub fn decrement(&self, labels: L) {
        if let Some(gauge) = self.0.get(labels) {
            gauge.decrement(1.0);
        }
    }
}

impl<L: Label> Gauges<L> {
    /// Sets 1 for one value and 0 for all others: the state that something is in.
    pub fn set_only(&self, current: L) {
        for value in L::ALL {
            self.set_flag(*value, Label::position(*value) == Label::position(current));
        }
    }
}

impl<L: Labels> Family for Gauges<L> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn series(&self) -> usize {
        L::COUNT
    }

    fn declare(&self) {
        metrics::describe_gauge!(self.0.name, self.0.help);
        self.0.create(|labels| metrics::gauge!(self.0.name, labels));
    }
}

/// Histograms with explicit buckets.
pub struct Histograms<L> {
    handles: Handles<Histogram, L>,
    buckets: &'static [f64],
}

impl<L: Labels> Histograms<L> {
    /// A family that does nothing until it is declared. `buckets`: upper bounds, ascending, not empty.
    pub const fn new(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { handles: Handles::new(name, help), buckets }
    }

    /// Notes a value.
    pub fn record(&self, labels: L, value: f64) {
        if let Some(histogram) = self.handles.get(labels) {
            histogram.record(value);
        }
    }

    /// Notes a span, in seconds.
    pub fn record_span(&self, labels: L, span: Duration) {
        self.record(labels, span.as_secs_f64());
    }
}

impl<L: Labels> Family for Histograms<L> {
    fn name(&self) -> &'static str {
        self.handles.name
    }

    fn series(&self) -> usize {
        L::COUNT
    }

    fn buckets(&self) -> Option<&'static [f64]> {
        Some(self.buckets)
    }

    fn declare(&self) {
        metrics::describe_histogram!(self.handles.name, self.handles.help);
        self.handles.create(|labels| metrics::histogram!(self.handles.name, labels));
    }
}

impl<L> fmt::Debug for Histograms<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histograms").field(&self.handles.name).finish()
    }
}

/// Declares enums whose variants are the values of a metrics label.
///
/// ```
/// overlay::labels! {
///     /// How it ended.
///     pub enum Outcome as "result" {
///         /// Well.
///         Ok = "ok",
///         /// Badly.
///         Failed = "failed",
///     }
/// }
/// ```
#[macro_export]
macro_rules! labels {
    ($($(#[$doc:meta])* $vis:vis enum $name:ident as $label:literal {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+
    })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            fn position(self) -> usize {
                self as usize
            }
        }
    )+};
}

/// Declares families and the table `FAMILIES` of all of them, for [`install`](crate::metrics::install).
///
/// ```
/// use overlay::metrics::{Counters, Histograms, SECONDS};
///
/// overlay::families! {
///     /// Scans.
///     pub static SCANS: Counters<()> = "quictrack_scans_total", "Scans of the shares.";
///     /// How long they take.
///     pub static SCAN_DURATION: Histograms<()> = "quictrack_scan_duration_seconds", "Time of a scan.", SECONDS;
/// }
/// ```
#[macro_export]
macro_rules! families {
    ($($(#[$doc:meta])* $vis:vis static $name:ident: $type:ty = $metric:literal, $help:literal $(, $buckets:expr)?;)+) => {
        $(
            $(#[$doc])*
            $vis static $name: $type = <$type>::new($metric, $help $(, $buckets)?);
        )+

        /// Every family declared beside it.
        #[allow(unreachable_pub, reason = "the table is public where its module is")]
        pub static FAMILIES: &[&dyn $crate::metrics::Family] = &[$(&$name),+];
    };
}
