# comment
^w\.x: a.example.net
^w\\.x: b.example.net
'^w\.y': c.example.net
"^w\.z": d.example.net
^a:host
^a : host
^x: host.example.net ^one two.example.net
flim: localhost
^alias_(.*)$: $1@127.0.0.1
^(b)$: $2.example.net
"^with blank$": e.example.net:imap
^h[#]x#comment
^comment: f.example.net # here
^joi\
ned: g.example.net
^empty: ""
^it\'s: h.example.net
^Capital: i.example.net
^(x|y).*|^z: j.example.net
^port: k.example.net:smtp
  ^odd: l.example.net ^next
m.example.net rest
^last: n.example.net