# bmake reads this first. It asks for no rules; -V is to answer as on FreeBSD.
.MAKE.EXPAND_VARIABLES=	yes
