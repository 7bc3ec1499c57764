(.*)@example.com: mail.example.com
(.*)@example.org: mail.example.org
(.*)@(.*): $2
