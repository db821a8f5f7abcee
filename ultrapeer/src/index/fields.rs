//! The words of one field at a time: what phrases and tag filters are checked against.

use overlay::{
    query::{Text, TextToken},
    text::Tokenizer,
};

use super::files::FileView;

/// The tokens of a field. Every position of a name holds exactly one token, so they are a list.
#[derive(Debug, Default)]
pub(super) struct FieldTokens {
    tokenizer: Tokenizer,
    text: String,
    ends: Vec<usize>,
}

impl FieldTokens {
    /// Replaces the field.
    pub(super) fn load(&mut self, field: &str) {
        let Self { tokenizer, text, ends } = self;
        text.clear();
        ends.clear();
        tokenizer.name_tokens(field, |token, _| {
            text.push_str(token);
            ends.push(text.len());
        });
    }

    /// Tokens of the field.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn token(&self, position: usize) -> Option<&str> {
        let end = *self.ends.get(position)?;
        let start = if position == 0 { 0 } else { self.ends[position - 1] };
        Some(&self.text[start..end])
    }

    /// True if the field holds what a word of a query stands for.
    pub(super) fn has(&self, wanted: &TextToken) -> bool {
        (0..self.len()).any(|position| self.is(position, wanted))
    }

    /// True if the field holds two words with that many positions from one to the other.
    pub(super) fn has_pair(&self, first: &TextToken, gap: usize, second: &TextToken) -> bool {
        (0..self.len()).any(|position| self.is(position, first) && self.is(position + gap, second))
    }

    /// True if the field holds the words one after the other.
    pub(super) fn holds(&self, words: &Text) -> bool {
        (0..self.len()).any(|start| {
            words.tokens().iter().all(|wanted| self.is(start.saturating_add(wanted.position as usize), wanted))
        })
    }

    fn is(&self, position: usize, wanted: &TextToken) -> bool {
        self.token(position)
            .is_some_and(|token| if wanted.prefix { token.starts_with(&*wanted.text) } else { *token == *wanted.text })
    }

    /// True if the field's text holds the words one after the other; replaces the field.
    pub(super) fn text_holds(&mut self, field: &str, words: &Text) -> bool {
        self.load(field);
        self.holds(words)
    }
}

/// The fields that words are looked for in: each component of the path, each text tag.
pub(super) fn fields_of<'a>(file: &FileView<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    file.path.split('/').chain(file.tags.texts())
}
