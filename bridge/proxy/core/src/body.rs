//! Bodies: where they end, and what of them is content. Fed in any cuts they give the same.

use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, HEAD_BYTES_MAX};

/// How a message's body is framed, and how far it has been read.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunked),
    /// All until the connection ends.
    UntilClose,
}

/// The inside of a chunked body.
#[derive(Debug)]
pub struct Chunked {
    at: At,
    left: u64,
    digits: u32,
    extension: usize,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Content.
    Data(&'a [u8]),
    /// The end, with the trailers of a chunked body: lines with their CRLF, and the empty line.
    End(Vec<u8>),
    /// Nothing more can be told before more comes.
    More,
    /// Not well-formed.
    Malformed,
}

impl Body {
    /// A chunked body, from its beginning.
    pub fn chunked() -> Self {
        Self::Chunked(Chunked {
            at: At::Size,
            left: 0,
            digits: 0,
            extension: 0,
            trailers: Vec::new(),
        })
    }

    /// The next piece at the beginning of `data`, and how many bytes of it that took. `End` comes
    /// once; for an empty body of a known length at once.
    pub fn next<'a>(&mut self, data: &'a [u8]) -> (Piece<'a>, usize) {
        match self {
            Self::Length(0) => (Piece::End(Vec::new()), 0),
            _ if data.is_empty() => (Piece::More, 0),
            Self::Length(left) => {
                let taken = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                (Piece::Data(&data[..taken]), taken)
            }
            Self::UntilClose => (Piece::Data(data), data.len()),
            Self::Chunked(chunked) => chunked.next(data),
        }
    }
}

impl Chunked {
    fn next<'a>(&mut self, data: &'a [u8]) -> (Piece<'a>, usize) {
        let mut at = 0;
        while at < data.len() {
            let byte = data[at];
            match self.at {
                At::Data => {
                    let room = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let taken = (data.len() - at).min(room);
                    self.left -= taken as u64;
                    if self.left == 0 {
                        self.at = At::DataCr;
                    }
                    return (Piece::Data(&data[at..at + taken]), at + taken);
                }
                At::Trailers => {
                    let (piece, taken) = self.trailer(&data[at..]);
                    return (piece, at + taken);
                }
                At::Done => return (Piece::Malformed, at),
                _ => {}
            }
            if !self.step(byte) {
                return (Piece::Malformed, at);
            }
            at += 1;
        }
        (Piece::More, at)
    }

    /// One byte of a chunk's frame.
    fn step(&mut self, byte: u8) -> bool {
        match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 16 => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.left = self.left * 16 + u64::from(digit);
                self.digits += 1;
            }
            (At::Size, b';') if self.digits > 0 => self.at = At::Extension,
            (At::Size | At::Extension, b'\r') if self.digits > 0 => self.at = At::SizeEnd,
            (At::Extension, byte) if !b"\r\n\0".contains(&byte) => {
                self.extension += 1;
                return self.extension <= CHUNK_EXTENSION_BYTES_MAX;
            }
            (At::SizeEnd, b'\n') => {
                self.at = if self.left == 0 {
                    At::Trailers
                } else {
                    At::Data
                };
                (self.digits, self.extension) = (0, 0);
            }
            (At::DataCr, b'\r') => self.at = At::DataLf,
            (At::DataLf, b'\n') => self.at = At::Size,
            _ => return false,
        }
        true
    }

    fn trailer<'a>(&mut self, data: &[u8]) -> (Piece<'a>, usize) {
        for (n, &byte) in data.iter().enumerate() {
            let after_cr = self.trailers.last() == Some(&b'\r');
            if byte == 0 || (byte == b'\n') != after_cr {
                return (Piece::Malformed, n);
            }
            self.trailers.push(byte);
            let ends = self.trailers.ends_with(b"\r\n\r\n") || self.trailers == b"\r\n";
            if ends {
                self.at = At::Done;
                return (Piece::End(std::mem::take(&mut self.trailers)), n + 1);
            }
            if self.trailers.len() > HEAD_BYTES_MAX {
                return (Piece::Malformed, n);
            }
        }
        (Piece::More, data.len())
    }
}

/// A chunk with this content, written to the end of `out`.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    use std::io::Write;
    // Writing to memory can't fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
        let mut body = Body::chunked();
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (found, used) = body.next(rest);
                rest = &rest[used..];
                taken += used;
                match found {
                    Piece::Data(data) => content.extend_from_slice(data),
                    Piece::End(trailers) => return Some((content, trailers, taken)),
                    Piece::More => break,
                    Piece::Malformed => return None,
                }
            }
        }
        None
    }

    #[test]
    fn chunks_are_read_alike_however_they_are_cut() {
        let sent = b"3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\nGET";
        let whole = read(&[sent]).expect("well-formed");
        assert_eq!(
            whole,
            (
                b"abc0123456789".to_vec(),
                b"X-Sum: 7\r\n\r\n".to_vec(),
                sent.len() - 3
            )
        );
        for cut in 0..sent.len() - 3 {
            assert_eq!(
                read(&[&sent[..cut], &sent[cut..]]).as_ref(),
                Some(&whole),
                "at {cut}"
            );
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_malformed() {
        let bad = [
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcX\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "\r\nabc",
            ";a\r\n",
            "3;\n\r\nabc\r\n0\r\n\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nA: b\nC: d\r\n\r\n",
            "0\r\nA: b\rC: d\r\n\r\n",
        ];
        for sent in bad {
            assert_eq!(read(&[sent.as_bytes()]), None, "{sent:?}");
        }
    }
}
