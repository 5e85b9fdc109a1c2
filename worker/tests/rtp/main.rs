//! RTP and RTCP as bytes: read, judged and written as their RFCs say, and as other parsers do.

mod extensions;
mod header;
mod payloads;
mod rtcp;
mod rtcp_reports;
mod sequence;
mod twcc;
