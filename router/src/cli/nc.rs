//! `softnet nc`: a connection of the router's own stack, joined to standard input and output.

use super::{
    Exit,
    ask::{At, Failure, put},
};
use crate::control::{
    client::{ClientError, Speaker},
    proto::{Nc, Octets, Request, Response},
};
use clap::Args;
use std::{io::Read, net::IpAddr};

/// Where to.
#[derive(Clone, Debug, Args)]
pub struct NcArgs {
    /// UDP instead of TCP
    #[arg(short)]
    udp: bool,
    /// Await a connection instead
    #[arg(short)]
    listen: bool,
    /// [ADDRESS] PORT; only PORT with -l
    #[arg(num_args = 1..=2, required = true, value_names = ["ADDRESS", "PORT"])]
    place: Vec<String>,
}

impl NcArgs {
    fn request(&self) -> Result<Nc, Failure> {
        let bad = |text: &str| {
            Failure::Which(format!("\"{text}\" makes no sense here: softnet nc ADDRESS PORT, or -l PORT"))
        };
        let port = |text: &String| text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| bad(text));
        match (&self.place[..], self.listen) {
            ([at], true) => Ok(Nc { to: None, port: port(at)?, udp: self.udp }),
            ([to, at], false) => {
                let to: IpAddr = to.parse().map_err(|_| bad(to))?;
                Ok(Nc { to: Some(to), port: port(at)?, udp: self.udp })
            }
            (place, _) => Err(bad(&place.join(" "))),
        }
    }
}

/// Runs the command.
pub fn run(at: &At, args: &NcArgs) -> Result<Exit, Failure> {
    let mut connection = at.connect()?;
    connection.set_patience(None)?;
    connection.say(&Request::Nc(args.request()?))?;
    let speaker = connection.speaker()?;
    // Ends with the process: a thread that waits for a terminal cannot be called back.
    std::thread::spawn(move || read_input(&speaker));
    loop {
        match connection.hear()? {
            Response::Connected(who) => eprintln!("{who}"),
            Response::Data(Octets(octets)) => put(&octets)?,
            Response::End => return Ok(Exit::Good),
            Response::Refused(refusal) => return Err(ClientError::Refused(refusal).into()),
            _ => return Err(Failure::Unexpected),
        }
    }
}

fn read_input(speaker: &Speaker) {
    let mut chunk = [0; 8 * 1024];
    while let Ok(n) = std::io::stdin().lock().read(&mut chunk) {
        let request = if n == 0 { Request::Shut } else { Request::Data(Octets(chunk[..n].to_vec())) };
        if speaker.say(&request).is_err() || n == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_and_a_port_or_a_port_to_listen_on() {
        let request = |listen, place: &[&str]| {
            let place = place.iter().map(ToString::to_string).collect();
            NcArgs { udp: false, listen, place }.request().ok()
        };
        let to = Some("2001:db8::1".parse().unwrap());
        assert_eq!(request(false, &["2001:db8::1", "80"]), Some(Nc { to, port: 80, udp: false }));
        assert_eq!(request(true, &["80"]), Some(Nc { to: None, port: 80, udp: false }));
        for (listen, place) in
            [(false, &["80"][..]), (true, &["192.0.2.1", "80"]), (false, &["x", "80"]), (true, &["0"])]
        {
            assert_eq!(request(listen, place), None, "{place:?}");
        }
    }
}
