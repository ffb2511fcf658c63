"""Who a request comes from and what it may do: login methods, sessions, roles, form tokens, the
trusted proxies.

Home-made on purpose: Flask-Login, Flask-Limiter and Flask-WTF configure the whole host application,
and this page is a blueprint that is mounted in one.
"""
