//! Heads of requests and answers: where they end, whether they are well-formed, and what each of
//! their fields is to a proxy.
//!
//! The rules are those of `bridge/proxy/plane/http1.py`, the specification: RFC 9112, less all that two
//! readers could read differently.

use crate::limits::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};

/// What a field is to a proxy; `Plain` fields concern nobody and pass as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Passes unread.
    Plain,
    /// Between two neighbours only (RFC 9110 section 7.6.1).
    Hop,
    /// Host.
    Host,
    /// Connection.
    Connection,
    /// Content-Length.
    ContentLength,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Upgrade.
    Upgrade,
    /// X-Forwarded-For.
    ForwardedFor,
    /// X-Forwarded-Proto.
    ForwardedProto,
    /// X-Request-Id.
    RequestId,
    /// Expect.
    Expect,
    /// Content-Type.
    ContentType,
    /// X-HTTP-Method-Override.
    MethodOverride,
    /// The field that names the account.
    Identity,
    /// Content_Length, Transfer_Encoding or Content_Type: Rack reads them like the real ones.
    Disguised,
}

/// One field, as offsets into its head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where its name begins.
    pub start: usize,
    /// Where its name ends.
    pub colon: usize,
    /// Where its value begins, less white space.
    pub value: usize,
    /// Where its value ends, less white space.
    pub value_end: usize,
    /// Behind its CRLF.
    pub end: usize,
    /// What it is to a proxy.
    pub kind: Kind,
}

impl Field {
    /// Its value, less the white space around it.
    pub fn value_in<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value..self.value_end]
    }

    /// Its name as it was written.
    pub fn name_in<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start..self.colon]
    }
}

/// Where a head stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Its end has not come; the next scan may begin here.
    Incomplete(usize),
    /// It ends here, behind the empty line.
    Complete(usize),
    /// It can't become a head, whatever follows.
    Malformed,
}

/// Looks for the end of the head at the beginning of `data`, from `from` on, which an earlier scan
/// told.
pub fn scan(data: &[u8], from: usize) -> Scan {
    let mut at = from;
    while let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &data[at..]) {
        let position = at + found;
        if data[position] != b'\r' {
            return Scan::Malformed;
        }
        let Some(&next) = data.get(position + 1) else {
            return Scan::Incomplete(position);
        };
        if next != b'\n' {
            return Scan::Malformed;
        }
        at = position + 2;
        if position >= 2 && &data[position - 2..position] == b"\r\n" {
            return Scan::Complete(at);
        }
    }
    Scan::Incomplete(data.len())
}

/// The length of the empty lines before a request line. There may be two, of which `before` bytes
/// have been taken already.
pub fn empty_lines(data: &[u8], before: usize) -> usize {
    let mut at = 0;
    while before + at < 4 && data[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// A request line.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine {
    /// Where the method ends.
    pub method_end: usize,
    /// Where the target begins.
    pub target: usize,
    /// Where the target ends.
    pub target_end: usize,
    /// HTTP/1.0.
    pub version_10: bool,
    /// Behind its CRLF.
    pub end: usize,
}

/// Reads the first line of a complete head. The error is the status to refuse it with.
pub fn request_line(head: &[u8]) -> Result<RequestLine, u16> {
    let end = line_end(head, 0);
    let line = &head[..end - 2];
    let method_end = memchr::memchr(b' ', line).ok_or(400u16)?;
    let version_at = memchr::memrchr(b' ', line).ok_or(400u16)?;
    if method_end == version_at || !(1..=32).contains(&method_end) {
        return Err(400);
    }
    let method = &line[..method_end];
    let (target, target_end) = (method_end + 1, version_at);
    if !method.iter().all(|&byte| TOKEN[byte as usize]) || target == target_end {
        return Err(400);
    }
    let version = &line[version_at + 1..];
    let numbered = version.len() == 8
        && version.starts_with(b"HTTP/")
        && version[5].is_ascii_digit()
        && version[6] == b'.'
        && version[7].is_ascii_digit();
    if !numbered || !line[target..target_end].iter().all(|&byte| is_target(byte)) {
        return Err(400);
    }
    let version_10 = match &version[5..] {
        b"1.1" => false,
        b"1.0" => true,
        _ => return Err(505),
    };
    if method == b"CONNECT" {
        return Err(405);
    }
    if target_end - target > TARGET_BYTES_MAX {
        return Err(414);
    }
    Ok(RequestLine {
        method_end,
        target,
        target_end,
        version_10,
        end,
    })
}

/// Looks at the whole lines of a head that has not come whole, from `from` on, which an earlier look
/// told: garbage is refused at once. The error is the status to refuse it with.
pub fn check_lines(data: &[u8], from: usize) -> Result<usize, u16> {
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\n', &data[at..]) {
        let end = at + found + 1;
        if at == 0 {
            request_line(data)?;
        } else {
            let line = &data[at..end];
            let colon = line
                .iter()
                .position(|&byte| !TOKEN[byte as usize])
                .unwrap_or(0);
            let is_field = colon > 0 && line[colon] == b':';
            if !is_field
                || !line[colon + 1..line.len() - 2]
                    .iter()
                    .all(|&byte| is_text(byte))
            {
                return Err(400);
            }
        }
        at = end;
    }
    Ok(at)
}

/// A status line.
#[derive(Clone, Copy, Debug)]
pub struct StatusLine {
    /// The status.
    pub status: u16,
    /// HTTP/1.0.
    pub version_10: bool,
    /// Behind its CRLF.
    pub end: usize,
}

/// Reads the first line of a complete head of an answer; nothing for one that is not well-formed.
pub fn status_line(head: &[u8]) -> Option<StatusLine> {
    let end = line_end(head, 0);
    let line = &head[..end - 2];
    if line.len() < 12 || !line.starts_with(b"HTTP/1.") || line[8] != b' ' {
        return None;
    }
    let version_10 = match line[7] {
        b'1' => false,
        b'0' => true,
        _ => return None,
    };
    let digits = &line[9..12];
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return None;
    }
    if line.len() > 12 && (line[12] != b' ' || !line[13..].iter().all(|&byte| is_text(byte))) {
        return None;
    }
    let status = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some(StatusLine {
        status,
        version_10,
        end,
    })
}

/// Reads the fields of a complete head, from `at` to its empty line, into `fields`. The error is
/// the status to refuse a request with.
pub fn fields(
    head: &[u8],
    mut at: usize,
    identity: &[u8],
    fields: &mut Vec<Field>,
) -> Result<(), u16> {
    fields.clear();
    if head.len() > HEAD_BYTES_MAX {
        return Err(431);
    }
    let last = head.len() - 2;
    while at < last {
        let end = line_end(head, at);
        let mut colon = at;
        while TOKEN[head[colon] as usize] {
            colon += 1;
        }
        if head[colon] != b':' || colon == at {
            return Err(400);
        }
        let (mut value, mut value_end) = (colon + 1, end - 2);
        while value < value_end && is_space(head[value]) {
            value += 1;
        }
        while value < value_end && is_space(head[value_end - 1]) {
            value_end -= 1;
        }
        if !head[value..value_end].iter().all(|&byte| is_text(byte)) {
            return Err(400);
        }
        let kind = kind_of(&head[at..colon], identity);
        fields.push(Field {
            start: at,
            colon,
            value,
            value_end,
            end,
            kind,
        });
        if fields.len() > FIELDS_MAX {
            return Err(431);
        }
        at = end;
    }
    Ok(())
}

/// The members of a comma-separated list, less white space and empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|token| !token.is_empty())
}

/// Less the spaces and tabs around it.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_space(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_space(*last)
    {
        value = rest;
    }
    value
}

/// What a Connection field may not have dropped: how the message is read, and who sent it.
pub fn is_protected(name: &[u8]) -> bool {
    [
        b"host".as_slice(),
        b"content-length",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x-request-id",
    ]
    .iter()
    .any(|one| one.eq_ignore_ascii_case(name))
}

fn kind_of(name: &[u8], identity: &[u8]) -> Kind {
    let mut lower = [0u8; 32];
    if name.len() > lower.len() {
        let same = name.len() == identity.len()
            && name
                .iter()
                .zip(identity)
                .all(|(&one, &other)| folded(one) == other);
        return if same { Kind::Identity } else { Kind::Plain };
    }
    let mut underscore = false;
    for (to, &from) in lower.iter_mut().zip(name) {
        underscore |= from == b'_';
        *to = folded(from);
    }
    let lower = &lower[..name.len()];
    if lower == identity {
        return Kind::Identity;
    }
    let kind = match lower {
        b"x-forwarded-for" => return Kind::ForwardedFor,
        b"x-forwarded-proto" => return Kind::ForwardedProto,
        b"x-request-id" => return Kind::RequestId,
        b"x-http-method-override" => return Kind::MethodOverride,
        b"host" => return Kind::Host,
        b"connection" => return Kind::Connection,
        b"upgrade" => return Kind::Upgrade,
        b"expect" => return Kind::Expect,
        b"te" => return Kind::Hop,
        b"content-type" => Kind::ContentType,
        b"content-length" => Kind::ContentLength,
        b"transfer-encoding" => Kind::TransferEncoding,
        b"keep-alive" | b"proxy-connection" | b"proxy-authenticate" | b"proxy-authorization" => {
            Kind::Hop
        }
        _ => return Kind::Plain,
    };
    match (kind, underscore) {
        (Kind::Hop, true) => Kind::Plain,
        (_, true) => Kind::Disguised,
        (kind, false) => kind,
    }
}

/// In lower case, and `_` as `-`: Rack tells neither apart.
fn folded(byte: u8) -> u8 {
    if byte == b'_' {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

/// Behind the CRLF of the line that begins at `at`; a complete head has one.
fn line_end(head: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &head[at..]).map_or(head.len(), |found| at + found + 1)
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && byte != b'#'
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"!#$%&'*+-.^_`|~";
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_it_ends_however_it_comes() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..head.len() {
            let from = match scan(&head[..cut], 0) {
                Scan::Incomplete(from) => from,
                found => {
                    assert_eq!(found, Scan::Complete(27));
                    continue;
                }
            };
            assert_eq!(scan(head, from), Scan::Complete(27), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_line_end_is_malformed() {
        for head in [b"GET / HTTP/1.1\nHost".as_slice(), b"G\rET", b"GET /\0"] {
            assert_eq!(scan(head, 0), Scan::Malformed);
        }
    }

    #[test]
    fn rack_reads_underscores_as_hyphens() {
        assert_eq!(kind_of(b"Content_Length", b""), Kind::Disguised);
        assert_eq!(kind_of(b"X_Member-Id", b"x-member-id"), Kind::Identity);
        assert_eq!(kind_of(b"Keep_Alive", b""), Kind::Plain);
    }
}
