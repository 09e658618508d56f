PORTNAME=	kopiatomic
DISTVERSION=	0.1.0
CATEGORIES=	sysutils

# To submit the port, put the address of its maintainer here.
MAINTAINER=	ports@FreeBSD.org
COMMENT=	Atomic backups of ZFS datasets with kopia or restic
# To submit the port, put the page of the sources here.  USE_GITHUB fetches from there: if
# the account is not named as the port, GH_ACCOUNT says so.
WWW=		https://github.com/kopiatomic/kopiatomic

LICENSE=	BSD2CLAUSE
LICENSE_FILE=	${WRKSRC}/LICENSE

BUILD_DEPENDS=	${PYTHON_PKGNAMEPREFIX}Jinja2>0:devel/py-Jinja2@${PY_FLAVOR}
TEST_DEPENDS=	${PYTHON_PKGNAMEPREFIX}hypothesis>0:devel/py-hypothesis@${PY_FLAVOR} \
		${PYTHON_PKGNAMEPREFIX}pytest-subprocess>0:devel/py-pytest-subprocess@${PY_FLAVOR} \
		${PYTHON_PKGNAMEPREFIX}pytest>0:devel/py-pytest@${PY_FLAVOR} \
		kopia:sysutils/kopia \
		restic:sysutils/restic

USES=		python:3.11+ shebangfix
USE_GITHUB=	yes
USE_RC_SUBR=	kopiatomic_sweep
SHEBANG_FILES=	files/executable.in

NO_ARCH=	yes
SUB_FILES=	pkg-message

# Who backs up has a client, and seldom both: none is installed unasked.
OPTIONS_DEFINE=		BASH EXAMPLES FISH ZSH
OPTIONS_DEFAULT=	BASH EXAMPLES FISH ZSH
OPTIONS_GROUP=		CLIENT
OPTIONS_GROUP_CLIENT=	KOPIA RESTIC
OPTIONS_SUB=		yes

CLIENT_DESC=	Backup clients
KOPIA_DESC=	Install kopia, which kopiatomic runs
RESTIC_DESC=	Install restic, which restomic runs

KOPIA_RUN_DEPENDS=	kopia:sysutils/kopia
RESTIC_RUN_DEPENDS=	restic:sysutils/restic

_PROGRAMS=	kopiatomic restomic
_PERIODS=	daily monthly security weekly
_SAMPLES=	kopia-myrepo restic-myrepo
_EXAMPLES=	healthchecks ntfy textfile webhook
_MODULES=	${PREFIX}/libexec/${PORTNAME}

do-build:
	@${MKDIR} ${WRKSRC}/build
	${PYTHON_CMD} ${WRKSRC}/periodic/render.py --destdir ${WRKSRC}/build \
		--prefix ${PREFIX} --localbase ${LOCALBASE}
.for program in ${_PROGRAMS}
	${SED} -e 's|%%PROGRAM%%|${program}|' -e 's|%%MODULES%%|${_MODULES}|' \
		${WRKSRC}/files/executable.in > ${WRKSRC}/build/${program}
.endfor
.for client in ${_SAMPLES}
	${SED} -e 's|/usr/local|${PREFIX}|g' \
		${WRKSRC}/files/${client}.sample > ${WRKSRC}/build/${client}.sample
	${SED} -e 's|/usr/local|${PREFIX}|g' \
		${WRKSRC}/files/${client}.env.sample > ${WRKSRC}/build/${client}.env.sample
.endfor
.for example in ${_EXAMPLES}
	${SED} -e 's|/usr/local|${PREFIX}|g' \
		${WRKSRC}/files/examples/${example}.sh > ${WRKSRC}/build/${example}.sh
.endfor

do-install:
	@${MKDIR} ${STAGEDIR}${_MODULES}
	@cd ${WRKSRC}/src && ${COPYTREE_SHARE} ${PORTNAME} ${STAGEDIR}${_MODULES} "-not -name *.pyc"
.for program in ${_PROGRAMS}
	${INSTALL_SCRIPT} ${WRKSRC}/build/${program} ${STAGEDIR}${PREFIX}/sbin
	${INSTALL_MAN} ${WRKSRC}/build${PREFIX}/share/man/man8/${program}.8 \
		${STAGEDIR}${PREFIX}/share/man/man8
.endfor
.for period in ${_PERIODS}
	@${MKDIR} ${STAGEDIR}${PREFIX}/etc/periodic/${period}
	${INSTALL_SCRIPT} ${WRKSRC}/build${PREFIX}/etc/periodic/${period}/* \
		${STAGEDIR}${PREFIX}/etc/periodic/${period}
.endfor
	@${MKDIR} ${STAGEDIR}${ETCDIR}
.for client in ${_SAMPLES}
	${INSTALL} -m 0700 ${WRKSRC}/build/${client}.sample ${STAGEDIR}${ETCDIR}
	${INSTALL} -m 0600 ${WRKSRC}/build/${client}.env.sample ${STAGEDIR}${ETCDIR}
.endfor
	${INSTALL} -d -m 0700 ${STAGEDIR}/var/db/${PORTNAME}

do-install-BASH-on:
	@${MKDIR} ${STAGEDIR}${PREFIX}/share/bash-completion/completions
.for program in ${_PROGRAMS}
	${INSTALL_DATA} ${WRKSRC}/files/completions/kopiatomic.bash \
		${STAGEDIR}${PREFIX}/share/bash-completion/completions/${program}
.endfor

do-install-EXAMPLES-on:
	@${MKDIR} ${STAGEDIR}${EXAMPLESDIR}
.for example in ${_EXAMPLES}
	${INSTALL_SCRIPT} ${WRKSRC}/build/${example}.sh ${STAGEDIR}${EXAMPLESDIR}
.endfor

do-install-FISH-on:
	@${MKDIR} ${STAGEDIR}${PREFIX}/share/fish/vendor_completions.d
.for program in ${_PROGRAMS}
	${INSTALL_DATA} ${WRKSRC}/build${PREFIX}/share/fish/vendor_completions.d/${program}.fish \
		${STAGEDIR}${PREFIX}/share/fish/vendor_completions.d
.endfor

do-install-ZSH-on:
	@${MKDIR} ${STAGEDIR}${PREFIX}/share/zsh/site-functions
	${INSTALL_DATA} ${WRKSRC}/files/completions/_kopiatomic \
		${STAGEDIR}${PREFIX}/share/zsh/site-functions

# Each start would take more than twice as long without bytecode, and the programs write none.
# It is valid for the contents of its source, whatever time the installed file bears.
post-install:
	@cd ${STAGEDIR}${_MODULES} && umask 022 && ${PYTHON_CMD} -I -m compileall -q \
		--invalidation-mode checked-hash -d ${_MODULES}/${PORTNAME} ${PORTNAME}
	@cd ${STAGEDIR}${PREFIX} && ${FIND} libexec/${PORTNAME} -name '*.pyc' | ${SORT} \
		>> ${TMPPLIST}

do-test:
	@cd ${TEST_WRKSRC} && ${SETENV} ${TEST_ENV} \
		${PYTHON_CMD} -m pytest ${TEST_ARGS:NDESTDIR=*}

# The same sources give the same package: pkg(8) packs the times as well.
pre-package:
	@${FIND} ${STAGEDIR} -exec ${TOUCH} -h -r ${WRKSRC}/LICENSE {} +

.include <bsd.port.mk>
