//! Finds id and symbol in the monolith's answer to a new order, and reads nothing else of it.

/// Where the answer has them.
#[derive(Clone, Debug, Default)]
pub struct PlacedKeys {
    /// The key that the order is wrapped in; empty: none.
    pub root: String,
    /// The key that several orders are wrapped in; empty: none.
    pub many_root: String,
    /// The key of the order's id.
    pub id: String,
    /// The key of its symbol.
    pub symbol: String,
}

/// The order's id and symbol, or nothing where the answer does not show both plainly.
pub fn placed_order(body: &[u8], keys: &PlacedKeys) -> Option<(u64, String)> {
    let mut reader = Reader::of(body, keys)?;
    if !keys.root.is_empty() {
        reader.enter(&keys.root)?;
    }
    reader.order(keys)?
}

/// The same of the answer to several orders; those that were refused show neither.
pub fn placed_orders(body: &[u8], keys: &PlacedKeys) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let Some(mut reader) = Reader::of(body, keys) else {
        return found;
    };
    let is_there = keys.many_root.is_empty() || reader.enter(&keys.many_root).is_some();
    if !is_there || reader.expect(b'[').is_none() {
        return found;
    }
    while let Some(order) = reader.order(keys) {
        found.extend(order);
        if reader.expect(b',').is_none() {
            break;
        }
    }
    found
}

const DEPTH_MAX: u32 = 64;

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    fn of(data: &'a [u8], keys: &PlacedKeys) -> Option<Self> {
        let is_shown = !keys.id.is_empty() && !keys.symbol.is_empty();
        is_shown.then_some(Self {
            data,
            at: 0,
            depth: 0,
        })
    }

    /// An object: its id and symbol, if it has both.
    fn order(&mut self, keys: &PlacedKeys) -> Option<Option<(u64, String)>> {
        let (mut id, mut symbol) = (None, None);
        self.members(|reader, key| {
            if key == keys.id.as_bytes() {
                id = reader.number();
                id.map(|_| ())
            } else if key == keys.symbol.as_bytes() {
                symbol = reader.text().map(<[u8]>::to_vec);
                symbol.as_ref().map(|_| ())
            } else {
                reader.skip()
            }
        })?;
        let symbol = symbol.and_then(|symbol| String::from_utf8(symbol).ok());
        Some(id.zip(symbol))
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.data.get(self.at) {
            self.at += 1;
        }
        self.data.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// A string without escapes.
    fn text(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        let length = memchr::memchr2(b'"', b'\\', &self.data[start..])?;
        if self.data[start + length] == b'\\' {
            return None;
        }
        self.at = start + length + 1;
        Some(&self.data[start..start + length])
    }

    fn number(&mut self) -> Option<u64> {
        self.peek()?;
        let start = self.at;
        while self.data.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if matches!(self.data.get(self.at), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        std::str::from_utf8(&self.data[start..self.at])
            .ok()?
            .parse()
            .ok()
    }

    /// Calls `visit` at the value of each member of an object; it reads the value.
    fn members(&mut self, mut visit: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            self.depth -= 1;
            return Some(());
        }
        loop {
            let key = self.key()?;
            self.expect(b':')?;
            visit(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
        }
        self.at += 1;
        self.depth -= 1;
        Some(())
    }

    /// Goes to the value of this member of an object.
    fn enter(&mut self, wanted: &str) -> Option<()> {
        self.expect(b'{')?;
        loop {
            let key = self.key()?;
            self.expect(b':')?;
            if key == wanted.as_bytes() {
                return Some(());
            }
            self.skip()?;
            self.expect(b',')?;
        }
    }

    /// A key, with its escapes as they are: none that we look for has any.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let start = self.at + 1;
        self.skip_text()?;
        Some(&self.data[start..self.at - 1])
    }

    fn skip_text(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            let found = memchr::memchr2(b'"', b'\\', self.data.get(self.at..)?)?;
            let at = self.at + found;
            if self.data[at] == b'"' {
                self.at = at + 1;
                return Some(());
            }
            self.at = at + 2;
        }
    }

    fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_text(),
            b'{' => self.members(|reader, _| reader.skip()),
            b'[' => self.skip_list(),
            _ => {
                let start = self.at;
                while let Some(byte) = self.data.get(self.at) {
                    if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
                        break;
                    }
                    self.at += 1;
                }
                (self.at > start).then_some(())
            }
        }
    }

    fn skip_list(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        self.expect(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            self.depth -= 1;
            return Some(());
        }
        loop {
            self.skip()?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.at += 1;
        self.depth -= 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(root: &str) -> PlacedKeys {
        PlacedKeys {
            root: root.into(),
            many_root: "orders".into(),
            id: "id".into(),
            symbol: "market".into(),
        }
    }

    #[test]
    fn an_order_is_found_among_all_else() {
        let body = br#"{"meta": [1, {"id": 3}, "a\"}"], "order" : {"x": {"id": 1}, "id": 42,
            "f": -1.5e3, "market": "BTC-USD", "trades": []}}"#;
        assert_eq!(
            placed_order(body, &keys("order")),
            Some((42, "BTC-USD".into()))
        );
        assert_eq!(
            placed_order(br#"{"market":"A","id":7}"#, &keys("")),
            Some((7, "A".into()))
        );
    }

    #[test]
    fn several_orders_are_found_and_the_refused_ones_left_out() {
        let body = br#"{"orders": [{"id": 1, "market": "A"}, {"errors": {"base": ["no"]}},
            {"market": "B", "id": 2, "trades": [{"id": 9}]}]}"#;
        let expected = vec![(1, "A".to_string()), (2, "B".to_string())];
        assert_eq!(placed_orders(body, &keys("order")), expected);
        assert_eq!(placed_orders(br#"{"orders": []}"#, &keys("order")), vec![]);
        assert_eq!(placed_orders(br#"[{"id": 1}]"#, &keys("order")), vec![]);
    }

    #[test]
    fn what_is_not_plain_is_not_read() {
        let bad = [
            r#"{"order":{"id":"7","market":"A"}}"#,
            r#"{"order":{"id":7.0,"market":"A"}}"#,
            r#"{"order":{"id":7,"market":"\u0041"}}"#,
            r#"{"order":{"id":7}}"#,
            r#"{"order":[]}"#,
            r#"{"order":{"id":7,"market":"A""#,
            "",
            r#"{"order":{"id":99999999999999999999,"market":"A"}}"#,
        ];
        for body in bad {
            assert_eq!(
                placed_order(body.as_bytes(), &keys("order")),
                None,
                "{body}"
            );
        }
        let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        assert_eq!(placed_order(deep.as_bytes(), &keys("order")), None);
    }
}
