# A few systems as their SYNs look today, in the format of pf.os. Written for the tests.
#
# window:ttl:df:size:options:class:version:subtype:details

S44:64:1:60:M*,S,T,N,W7:Linux:5-6::Linux 5 and 6
S20:64:1:60:M*,S,T,N,W7:Linux:4.15-4.19:late:Linux, late 4
65535:64:1:60:M*,N,W6,S,T:FreeBSD:14.0:RELEASE:FreeBSD 14.0
16384:64:1:64:M*,N,N,S,N,W6,N,N,T:OpenBSD:7.5-7.7::OpenBSD 7.5 and newer
16384:64:0:64:M*,N,N,S,N,W6,N,N,T:OpenBSD:7.5-7.7:no-df:OpenBSD behind scrub no-df
%8192:128:1:52:M*,N,W8,N,N,S:Windows:10::Windows 10
%8192:128:1:52:M*,N,W8,N,N,S:Windows:11:24H2:Windows 11
*:64:1:*:M*,S,T,N,W%2:@Linux:some::anything like Linux
1024:255:0:40:.:Printer:::a device without options
