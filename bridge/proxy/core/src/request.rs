//! From the head of a request to what the monolith gets of it.

use crate::body::Body;
use crate::exchange::Exchange;
use crate::head::{self, Field, Kind};

/// What writing a request's head needs beside the head.
pub struct Around<'a> {
    /// The client's address.
    pub peer: &'a [u8],
    /// It speaks TLS to us.
    pub secure: bool,
    /// Of the monolith, for a request without a Host.
    pub authority: &'a [u8],
    /// An id for a request without one.
    pub request_id: &'a [u8],
    /// Name of the field that names the account, in lower case with hyphens.
    pub identity: &'a [u8],
}

/// Reads a complete head into `exchange`, its new head into `exchange.out`, and says what body
/// follows. The error is the status to refuse it with.
pub fn read(
    head: &[u8],
    around: &Around<'_>,
    fields: &mut Vec<Field>,
    exchange: &mut Exchange,
) -> Result<Body, u16> {
    let line = head::request_line(head)?;
    exchange.version_10 = line.version_10;
    exchange.method.extend_from_slice(&head[..line.method_end]);
    exchange
        .target
        .extend_from_slice(&head[line.target..line.target_end]);
    head::fields(head, line.end, around.identity, fields)?;
    let noted = Noted::read(head, fields, exchange)?;
    if !noted.host_fits(head, exchange) {
        return Err(400);
    }
    let body = noted.body(head, exchange)?;
    exchange.keep_alive = if exchange.version_10 {
        noted.keeps_alive && !noted.closes
    } else {
        !noted.closes
    };
    let has_body = !matches!(body, Body::Length(0));
    exchange.upgrade = noted.switches
        && exchange.method == b"GET"
        && !exchange.version_10
        && !has_body
        && noted.wishes_upgrade
        && !noted.wishes_http_2;
    write(head, around, fields, &noted, exchange);
    Ok(body)
}

#[derive(Default)]
struct Noted<'a> {
    host: Option<Field>,
    hosts: usize,
    length: Option<Field>,
    coding: Option<Field>,
    wishes_upgrade: bool,
    wishes_http_2: bool,
    forwarded_for: Option<usize>,
    has_proto: bool,
    closes: bool,
    keeps_alive: bool,
    switches: bool,
    nominated: Vec<&'a [u8]>,
}

impl<'a> Noted<'a> {
    fn read(head: &'a [u8], fields: &[Field], exchange: &mut Exchange) -> Result<Self, u16> {
        let mut noted = Self::default();
        for field in fields.iter().filter(|field| field.kind == Kind::Connection) {
            noted.connection(field.value_in(head));
        }
        for (at, field) in fields.iter().enumerate() {
            let value = field.value_in(head);
            if !noted.nominated.is_empty() && is_nominated(field.name_in(head), &noted.nominated) {
                continue; // nobody behind us will see it: nothing is read into it here either
            }
            match field.kind {
                Kind::Plain | Kind::Hop | Kind::Connection => {}
                Kind::Disguised => return Err(400),
                Kind::Host => {
                    noted.host = Some(*field);
                    noted.hosts += 1;
                }
                Kind::ContentLength if noted.length.is_some() => return Err(400),
                Kind::ContentLength => noted.length = Some(*field),
                Kind::TransferEncoding if noted.coding.is_some() => return Err(400),
                Kind::TransferEncoding => noted.coding = Some(*field),
                Kind::Upgrade => {
                    for wish in head::tokens(value) {
                        noted.wishes_upgrade = true;
                        noted.wishes_http_2 |= wish.eq_ignore_ascii_case(b"h2c");
                    }
                }
                Kind::ForwardedFor => noted.forwarded_for = Some(at),
                Kind::ForwardedProto => noted.has_proto = true,
                Kind::RequestId => replace(&mut exchange.request_id, value),
                Kind::Expect => {
                    exchange.awaits_continue = value.eq_ignore_ascii_case(b"100-continue");
                }
                // Rack joins several with commas, and only what is before one counts.
                Kind::ContentType if exchange.content_type.is_empty() => {
                    exchange.content_type.extend_from_slice(value);
                }
                Kind::ContentType => {}
                Kind::MethodOverride => join(&mut exchange.method_override, value),
                // Several identities are none: Rack would read them as one unreadable value.
                Kind::Identity => join(&mut exchange.identity, value),
            }
        }
        Ok(noted)
    }

    fn connection(&mut self, value: &'a [u8]) {
        for token in head::tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.switches = true;
            } else if !head::is_protected(token) {
                self.nominated.push(token);
            }
        }
    }

    fn body(&self, head: &[u8], exchange: &mut Exchange) -> Result<Body, u16> {
        if let Some(coding) = self.coding {
            if self.length.is_some() || exchange.version_10 {
                return Err(400);
            }
            let value = coding.value_in(head);
            if !value.eq_ignore_ascii_case(b"chunked") {
                let mut codings: Vec<_> =
                    value.split(|&byte| byte == b',').map(head::trim).collect();
                codings.pop();
                let is_before = codings
                    .iter()
                    .any(|one| one.eq_ignore_ascii_case(b"chunked"));
                return Err(if is_before { 400 } else { 501 });
            }
            exchange.chunked = true;
            return Ok(Body::chunked());
        }
        match self.length {
            None => Ok(Body::Length(0)),
            Some(length) => content_length(length.value_in(head))
                .map(Body::Length)
                .ok_or(400),
        }
    }

    fn host_fits(&self, head: &[u8], exchange: &Exchange) -> bool {
        if self.hosts > 1 || (self.hosts == 0 && !exchange.version_10) {
            return false;
        }
        let host = self
            .host
            .map_or(b"".as_slice(), |field| field.value_in(head));
        if host.iter().any(|byte| b" \t,/@?#\\".contains(byte)) {
            return false;
        }
        let target = exchange.target.as_slice();
        target.starts_with(b"/")
            || (target == b"*" && exchange.method == b"OPTIONS")
            || (self.hosts == 1 && absolute_authority(target) == Some(host))
    }
}

/// The value of a Content-Length field.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    )
}

/// Of a target in absolute form.
fn absolute_authority(target: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memmem::find(target, b"://")?;
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = &target[colon + 3..];
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

fn write(
    head: &[u8],
    around: &Around<'_>,
    fields: &[Field],
    noted: &Noted<'_>,
    exchange: &mut Exchange,
) {
    let out = &mut exchange.out;
    for piece in [
        &exchange.method,
        b" ".as_slice(),
        &exchange.target,
        b" HTTP/1.1\r\n",
    ] {
        out.extend_from_slice(piece);
    }
    for (at, field) in fields.iter().enumerate() {
        match field.kind {
            Kind::Hop | Kind::Connection => continue,
            Kind::Upgrade if !exchange.upgrade => continue,
            _ => {}
        }
        if is_nominated(field.name_in(head), &noted.nominated) {
            continue;
        }
        if noted.forwarded_for == Some(at) {
            out.extend_from_slice(&head[field.start..field.end - 2]);
            add(out, &[b", ", around.peer]);
        } else {
            out.extend_from_slice(&head[field.start..field.end]);
        }
    }
    if noted.forwarded_for.is_none() {
        add(out, &[b"X-Forwarded-For: ", around.peer]);
    }
    if around.secure && !noted.has_proto {
        add(out, &[b"X-Forwarded-Proto: https"]);
    }
    if exchange.request_id.is_empty() {
        exchange.request_id.extend_from_slice(around.request_id);
        add(out, &[b"X-Request-Id: ", around.request_id]);
    }
    if noted.hosts == 0 {
        add(out, &[b"Host: ", around.authority]);
    }
    if exchange.upgrade {
        add(out, &[b"Connection: Upgrade"]);
    }
    out.extend_from_slice(b"\r\n");
}

/// True for a field that a Connection field names.
pub fn is_nominated(name: &[u8], nominated: &[&[u8]]) -> bool {
    nominated.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// The trailers of an answer that may pass, from its trailers; none when they are malformed.
pub fn passing_trailers(
    trailers: &[u8],
    identity: &[u8],
    fields: &mut Vec<Field>,
) -> Option<Vec<u8>> {
    head::fields(trailers, 0, identity, fields).ok()?;
    let mut out = Vec::new();
    for field in fields.iter().filter(|field| field.kind == Kind::Plain) {
        out.extend_from_slice(&trailers[field.start..field.end]);
    }
    out.extend_from_slice(b"\r\n");
    Some(out)
}

fn join(to: &mut Vec<u8>, value: &[u8]) {
    if !to.is_empty() {
        to.push(b',');
    }
    to.extend_from_slice(value);
}

fn replace(to: &mut Vec<u8>, from: &[u8]) {
    to.clear();
    to.extend_from_slice(from);
}

fn add(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}
