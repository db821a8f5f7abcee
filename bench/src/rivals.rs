//! The engines that the index is measured beside: tantivy and SQLite's FTS5, both in memory, both given the
//! very tokens of the index, so their own cutting costs next to nothing.

use overlay::{file::FileEntry, text::Tokenizer};
use rusqlite::{Connection, params};
use tantivy::{
    DocSet, Index, IndexReader, IndexWriter, ReloadPolicy, TERMINATED, TantivyDocument, Term,
    query::{BooleanQuery, EnableScoring, Occur, Query, RegexQuery, TermQuery},
    schema::{Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{TextAnalyzer, WhitespaceTokenizer},
};

use crate::{engine::Engine, mix::Asked};

/// Bytes that tantivy's writer may collect before it writes a segment.
const WRITER_BYTES: usize = 200 << 20;

/// The distinct tokens of a path with one space between.
fn words(tokenizer: &mut Tokenizer, path: &str) -> String {
    let mut text = String::new();
    tokenizer.name_tokens(path, |token, _| {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(token);
    });
    text
}

/// tantivy with a RAM directory: documents only, no frequencies, no positions, nothing stored.
#[expect(missing_debug_implementations, reason = "its parts have none")]
pub struct Tantivy {
    writer: IndexWriter,
    reader: IndexReader,
    text: Field,
    leaf: Field,
    tokenizer: Tokenizer,
}

impl Tantivy {
    /// An empty index.
    pub fn new() -> anyhow::Result<Self> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("words")
            .set_index_option(IndexRecordOption::Basic)
            .set_fieldnorms(false);
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let leaf = schema.add_u64_field("leaf", INDEXED);
        let index = Index::create_in_ram(schema.build());
        index.tokenizers().register("words", TextAnalyzer::from(WhitespaceTokenizer::default()));
        let writer = index.writer_with_num_threads(1, WRITER_BYTES)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { writer, reader, text, leaf, tokenizer: Tokenizer::new() })
    }

    /// Brings everything into one segment, its best form.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let ids: Vec<_> = self.reader.searcher().segment_readers().iter().map(|reader| reader.segment_id()).collect();
        if ids.len() > 1 {
            self.writer.merge(&ids).wait()?;
        }
        self.reader.reload()?;
        Ok(())
    }
}

impl Engine for Tantivy {
    type Prepared = BooleanQuery;

    fn name(&self) -> &'static str {
        "tantivy"
    }

    fn add(&mut self, leaf: u32, files: &[FileEntry]) {
        for file in files {
            let mut document = TantivyDocument::new();
            document.add_text(self.text, words(&mut self.tokenizer, &file.path));
            document.add_u64(self.leaf, leaf.into());
            self.writer.add_document(document).expect("the writer lives");
        }
    }

    fn remove(&mut self, leaf: u32) {
        self.writer.delete_term(Term::from_field_u64(self.leaf, leaf.into()));
    }

    fn publish(&mut self) {
        self.writer.commit().expect("memory does not fail");
        self.reader.reload().expect("memory does not fail");
    }

    fn bytes(&self) -> u64 {
        self.reader.searcher().space_usage().map_or(0, |usage| usage.total().get_bytes())
    }

    fn prepare(&self, asked: &Asked) -> BooleanQuery {
        let term = |word: &String| -> Box<dyn Query> {
            Box::new(TermQuery::new(Term::from_field_text(self.text, word), IndexRecordOption::Basic))
        };
        let mut clauses: Vec<(Occur, Box<dyn Query>)> =
            asked.words.iter().map(|word| (Occur::Must, term(word))).collect();
        if let Some(prefix) = &asked.prefix {
            // Words are letters and digits, which stand for themselves.
            let query = RegexQuery::from_pattern(&format!("{prefix}.*"), self.text).expect("a plain pattern");
            clauses.push((Occur::Must, Box::new(query)));
        }
        if let Some(word) = &asked.without {
            clauses.push((Occur::MustNot, term(word)));
        }
        BooleanQuery::new(clauses)
    }

    fn find(&self, query: &BooleanQuery, most: usize) -> usize {
        let searcher = self.reader.searcher();
        let weight = query.weight(EnableScoring::disabled_from_searcher(&searcher)).expect("a well-formed query");
        let mut found = 0;
        for segment in searcher.segment_readers() {
            let mut files = weight.scorer(segment, 1.0).expect("memory does not fail");
            let alive = segment.alive_bitset();
            while found < most && files.doc() != TERMINATED {
                found += usize::from(alive.is_none_or(|alive| alive.is_alive(files.doc())));
                files.advance();
            }
        }
        found
    }
}

/// SQLite's FTS5 in memory: contentless, no columns, no positions.
#[derive(Debug)]
pub struct Fts5 {
    database: Connection,
    tokenizer: Tokenizer,
    /// By leaf: its first row and how many.
    rows: Vec<(i64, i64)>,
    next: i64,
    open: bool,
}

impl Fts5 {
    /// An empty index.
    pub fn new() -> anyhow::Result<Self> {
        let database = Connection::open_in_memory()?;
        database.execute_batch(
            "CREATE VIRTUAL TABLE files USING fts5(text, content='', contentless_delete=1, detail=none, \
             tokenize='unicode61 remove_diacritics 0')",
        )?;
        Ok(Self { database, tokenizer: Tokenizer::new(), rows: Vec::new(), next: 1, open: false })
    }

    /// Brings everything into one segment, its best form.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        Ok(self.database.execute_batch("INSERT INTO files(files) VALUES('optimize')")?)
    }

    fn begin(&mut self) {
        if !self.open {
            self.database.execute_batch("BEGIN").expect("memory does not fail");
            self.open = true;
        }
    }
}

impl Engine for Fts5 {
    type Prepared = String;

    fn name(&self) -> &'static str {
        "SQLite FTS5"
    }

    fn add(&mut self, leaf: u32, files: &[FileEntry]) {
        self.begin();
        let mut insert = self
            .database
            .prepare_cached("INSERT INTO files(rowid, text) VALUES(?1, ?2)")
            .expect("a well-formed statement");
        let leaf = leaf as usize;
        if self.rows.len() <= leaf {
            self.rows.resize(leaf + 1, (0, 0));
        }
        self.rows[leaf] = (self.next, files.len() as i64);
        for file in files {
            let text = words(&mut self.tokenizer, &file.path);
            insert.execute(params![self.next, text]).expect("memory does not fail");
            self.next += 1;
        }
    }

    fn remove(&mut self, leaf: u32) {
        self.begin();
        let (first, count) = self.rows[leaf as usize];
        let mut delete =
            self.database.prepare_cached("DELETE FROM files WHERE rowid = ?1").expect("a well-formed statement");
        for row in first..first + count {
            delete.execute([row]).expect("memory does not fail");
        }
    }

    fn publish(&mut self) {
        if self.open {
            self.database.execute_batch("COMMIT").expect("memory does not fail");
            self.open = false;
        }
    }

    fn bytes(&self) -> u64 {
        let pragma = |name: &str| -> i64 {
            self.database.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap_or_default()
        };
        ((pragma("page_count") - pragma("freelist_count")) * pragma("page_size")) as u64
    }

    fn prepare(&self, asked: &Asked) -> String {
        let words = asked.words.iter().map(|word| format!("\"{word}\""));
        let prefix = asked.prefix.iter().map(|prefix| format!("\"{prefix}\" *"));
        let mut text = format!("({})", words.chain(prefix).collect::<Vec<_>>().join(" AND "));
        if let Some(word) = &asked.without {
            text = format!("{text} NOT \"{word}\"");
        }
        text
    }

    fn find(&self, query: &String, most: usize) -> usize {
        let mut select = self
            .database
            .prepare_cached("SELECT rowid FROM files WHERE files MATCH ?1 LIMIT ?2")
            .expect("a well-formed statement");
        let mut rows = select.query(params![query, most as i64]).expect("a well-formed query");
        let mut found = 0;
        while let Ok(Some(_)) = rows.next() {
            found += 1;
        }
        found
    }
}
