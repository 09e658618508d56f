# A stand-in for FreeBSD's ports framework, for tests on Linux with Debian's bmake:
# what the documentation says of the variables and targets that this port uses, and
# no more.  Packages are not made and dependencies not looked for.

# What an administrator or a checkout adds.
.if exists(${.CURDIR}/Makefile.local)
.include "${.CURDIR}/Makefile.local"
.endif

OPSYS?=		FreeBSD
LOCALBASE?=	/usr/local
PREFIX?=	${LOCALBASE}
WRKDIR?=	${.CURDIR}/work
STAGEDIR?=	${WRKDIR}/stage
DISTDIR?=	${.CURDIR}/distfiles
FILESDIR?=	${.CURDIR}/files
PLIST?=		${.CURDIR}/pkg-plist
TMPPLIST?=	${WRKDIR}/.PLIST.mktmp
DESCR?=		${.CURDIR}/pkg-descr
ETCDIR?=	${PREFIX}/etc/${PORTNAME}
EXAMPLESDIR?=	${PREFIX}/share/examples/${PORTNAME}
DISTVERSIONFULL=${DISTVERSIONPREFIX}${DISTVERSION}${DISTVERSIONSUFFIX}
PKGNAME=	${PKGNAMEPREFIX}${PORTNAME}${PKGNAMESUFFIX}-${DISTVERSION}
EXTRACT_SUFX?=	.tar.gz

# Commands

CAT?=		cat
CHMOD?=		chmod
CP?=		cp
ECHO_CMD?=	echo
FIND?=		find
GZIP_CMD?=	gzip -nf -9
INSTALL?=	install
LN?=		ln
MKDIR?=		mkdir -p
MV?=		mv
RM?=		rm -f
SED?=		sed
SETENV?=	env
SORT?=		sort
TAR?=		tar
TOUCH?=		touch
BINMODE?=	555
MANMODE?=	444
SHAREMODE?=	0644
INSTALL_SCRIPT=	${INSTALL} -m ${BINMODE}
INSTALL_DATA=	${INSTALL} -m ${SHAREMODE}
# cd DIRECTORY && ${COPYTREE_SHARE} NAME TARGET "what find(1) is to choose"
COPYTREE_SHARE=	sh -c 'umask 022; ${FIND} "$$1" \( -type d -o -type f \) $$3 | \
	while read -r each; do if [ -d "$$each" ]; then ${MKDIR} "$$2/$$each"; \
	else ${INSTALL_DATA} "$$each" "$$2/$$each"; fi || exit; done' COPYTREE_SHARE
INSTALL_MAN=	${INSTALL} -m ${MANMODE}

# USE_GITHUB: a tarball of the tag

.if defined(USE_GITHUB)
GH_ACCOUNT?=	${PORTNAME}
GH_PROJECT?=	${PORTNAME}
GH_TAGNAME?=	${DISTVERSIONFULL}
DISTNAME?=	${GH_ACCOUNT}-${GH_PROJECT}-${GH_TAGNAME}
DISTFILES?=	${DISTNAME}_GH0${EXTRACT_SUFX}
MASTER_SITES?=	https://codeload.github.com/${GH_ACCOUNT}/${GH_PROJECT}/tar.gz/${GH_TAGNAME}
WRKSRC?=	${WRKDIR}/${GH_PROJECT}-${GH_TAGNAME:C/^v([0-9])/\1/}
.endif
DISTNAME?=	${PORTNAME}-${DISTVERSIONFULL}
DISTFILES?=	${DISTNAME}${EXTRACT_SUFX}
WRKSRC?=	${WRKDIR}/${DISTNAME}
TEST_WRKSRC?=	${WRKSRC}

# Options: the defaults, with WITH and without WITHOUT

_OPTIONS=	${OPTIONS_DEFINE} ${OPTIONS_GROUP:@group@${OPTIONS_GROUP_${group}}@}
BASH_DESC?=	Install programmable completions for Bash
EXAMPLES_DESC?=	Build and/or install examples
FISH_DESC?=	Install programmable completions for Fish
ZSH_DESC?=	Install programmable completions for zsh
.for option in ${_OPTIONS}
.  if (${OPTIONS_DEFAULT:M${option}} || "${WITH:M${option}}") && empty(WITHOUT:M${option})
PORT_OPTIONS+=	${option}
RUN_DEPENDS+=	${${option}_RUN_DEPENDS}
PLIST_SUB+=	${option}= ${option:MEXAMPLES:S/^/PORT/:S/$/=/}
_INSTALL_OPTIONS+=	do-install-${option}-on post-install-${option}-on
.  else
PLIST_SUB+=	${option}="@comment " ${option:MEXAMPLES:S/^/PORT/:S/$/="@comment "/}
_INSTALL_OPTIONS+=	do-install-${option}-off post-install-${option}-off
.  endif
.endfor
_DO_INSTALL_OPTIONS=	${_INSTALL_OPTIONS:Mdo-*}
_POST_INSTALL_OPTIONS=	${_INSTALL_OPTIONS:Mpost-*}

# USES=python, for the version named in PYTHON_VER

PYTHON_VER?=	3.11
PYTHON_SUFFIX=	${PYTHON_VER:S/.//}
PYTHON_VERSION=	python${PYTHON_VER}
PYTHON_PKGNAMEPREFIX=	py${PYTHON_SUFFIX}-
PY_FLAVOR=	py${PYTHON_SUFFIX}
PYTHONBASE?=	${LOCALBASE}
PYTHON_CMD?=	${PYTHONBASE}/bin/python${PYTHON_VER}
PYTHON_LIBDIR=	${PYTHONBASE}/lib/${PYTHON_VERSION}
PYTHON_SITELIBDIR=	${PYTHON_LIBDIR}/site-packages
PYTHONPREFIX_LIBDIR=	${PYTHON_LIBDIR:S;${PYTHONBASE};${PREFIX};}
PYTHONPREFIX_SITELIBDIR=	${PYTHON_SITELIBDIR:S;${PYTHONBASE};${PREFIX};}
PLIST_SUB+=	ETCDIR=${ETCDIR:S;${PREFIX}/;;} \
		EXAMPLESDIR=${EXAMPLESDIR:S;${PREFIX}/;;} \
		PYTHON_SITELIBDIR=${PYTHONPREFIX_SITELIBDIR:S;${PREFIX}/;;} \
		PYTHON_SUFFIX=${PYTHON_SUFFIX} PYTHON_VER=${PYTHON_VER}
SUB_LIST+=	PREFIX=${PREFIX} LOCALBASE=${LOCALBASE} ETCDIR=${ETCDIR} \
		PYTHON_SITELIBDIR=${PYTHONPREFIX_SITELIBDIR} PYTHON_VER=${PYTHON_VER}
_PYTHON_DEPENDS=	${PYTHON_CMD}:lang/python${PYTHON_SUFFIX}

# USES=shebangfix

python_CMD?=	${PYTHON_CMD}
_OLD_PYTHONS=	/usr/bin/env python|/usr/bin/python|/usr/local/bin/python|/bin/python
_SHEBANG=	1s,^\#! *\(${_OLD_PYTHONS:S/|/\|/g}\)[23]\{0\,1\}\( \|$$\),\#!${python_CMD}\2,

# USE_RC_SUBR: scripts for rc(8), which the real framework adds to the packing list itself

SUB_FILES+=	${USE_RC_SUBR}

# Targets.  Each stage leaves a cookie and is not done again.

.MAIN: all
all: build
.for stage before in extract nothing patch extract configure patch build configure stage build
.  if !target(${stage})
${stage}: ${WRKDIR}/.${stage}_done
${WRKDIR}/.${stage}_done: ${before:S/nothing//:S,^,${WRKDIR}/.,:S/$/_done/:N*/._done}
	@${MKDIR} ${WRKDIR}
	@cd ${.CURDIR} && ${MAKE} ${.MAKEFLAGS} _${stage}
	@${TOUCH} ${.TARGET}
.  endif
.endfor

_extract: pre-extract do-extract post-extract
_patch: pre-patch do-patch post-patch fix-shebang
_configure: apply-slist pre-configure do-configure post-configure
_build: pre-build do-build post-build
_stage: stage-dir generate-plist pre-install do-install ${_DO_INSTALL_OPTIONS} post-install \
	${_POST_INSTALL_OPTIONS} post-stage compress-man install-rc-script
package: stage pre-package
test: stage pre-test do-test post-test
clean:
	@chmod -R u+w ${WRKDIR} 2>/dev/null; rm -rf ${WRKDIR}

.if !target(do-extract)
do-extract:
.  for file in ${DISTFILES}
	@cd ${WRKDIR} && ${TAR} -xzf ${DISTDIR}/${file}
.  endfor
.endif

fix-shebang:
.if defined(SHEBANG_FILES)
	@cd ${WRKSRC} && ${SED} -i -e '${_SHEBANG}' ${SHEBANG_FILES}
.endif

apply-slist:
.for file in ${SUB_FILES}
	@${SED} ${SUB_LIST:S/$/!g/:S/^/ -e s!%%/:S/=/%%!/} ${FILESDIR}/${file}.in > ${WRKDIR}/${file}
.endfor

install-rc-script:
.for script in ${USE_RC_SUBR}
	@${INSTALL_SCRIPT} ${WRKDIR}/${script} ${STAGEDIR}${PREFIX}/etc/rc.d/${script}
.endfor

# What mtree makes of Templates/BSD.local.dist, as far as it matters here.
stage-dir:
	@umask 022; ${MKDIR} ${STAGEDIR}${PREFIX}
	@umask 022; cd ${STAGEDIR}${PREFIX} && ${MKDIR} bin etc/rc.d lib sbin share/man/man8

# What pkg-plist says, and what the port adds to it.
generate-plist:
	@${SED} ${PLIST_SUB:S/$/!g/:S/^/ -e s!%%/:S/=/%%!/} ${PLIST} > ${TMPPLIST}

compress-man:
	@if [ -d ${STAGEDIR}${PREFIX}/share/man ]; then \
		${FIND} ${STAGEDIR}${PREFIX}/share/man -type f ! -name '*.gz' -exec ${GZIP_CMD} {} +; fi

.for target in pre-extract post-extract pre-patch do-patch post-patch pre-configure \
	do-configure post-configure pre-build do-build post-build pre-install do-install \
	post-install post-stage pre-package pre-test do-test post-test ${_INSTALL_OPTIONS}
.  if !target(${target})
${target}:
.  endif
.endfor

.PHONY: ${.ALLTARGETS:N*_done}
.NOTPARALLEL:
