^user: user2@localhost
(.*)@(.*): $1_$2@localhost
admin: root@b.example.net
([a-z]+)[.]x: $1@$1.example.net
